"""Random streams: one per (seed, owner, purpose), independent of each other."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, owner: str, purpose: str) -> np.random.Generator:
    """Generator that depends on its three arguments alone.

    Philox is counter-based with a 128-bit key (Salmon et al., 2011): distinct keys give
    independent streams, and one purpose may draw more or fewer numbers without moving the others.
    """
    digest = hashlib.sha256(f"{seed}\0{owner}\0{purpose}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
