"""Train, val and test of a corpus: by a hash, so that related images are in the same split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

FRACTIONS: Mapping[str, float] = {"train": 0.8, "val": 0.1, "test": 0.1}
"""Expected share of the groups in each split."""


SHARED = ("layout_id", "pair_id")
"""Labels, or entries of `meta.json`, that images of one layout or pair have in common."""


def split_group(meta: Mapping[str, Any]) -> str:
    """What an image shares with those that must be in its split, from its `meta.json`.

    The layout or pair that its labels name (columns `layout_id` and `pair_id` of a prompt table);
    else the image that it began with; else the conditioning layer that steered it; else the layout
    of a sweep, or its prompt and seed, none of which depends on the size and order of shards.
    """
    labels = meta.get("labels")
    named = {**meta, **(labels if isinstance(labels, Mapping) else {})}
    for name in SHARED:
        if named.get(name) is not None:
            return f"{name} {named[name]}"
    begun = meta.get("image_to_image")
    if isinstance(begun, Mapping) and begun.get("sha256"):
        return f"source {begun['sha256']}"
    steered = meta.get("steered_by")
    if isinstance(steered, Mapping) and steered.get("sha256"):
        return f"layer {steered['sha256']}"
    if meta.get("layout") is not None:
        return f"layout {meta['layout']}"
    identity = json.dumps([meta.get("prompt"), meta.get("seed")]).encode()
    return f"image {hashlib.sha256(identity).hexdigest()[:32]}"


def split_of(group: str) -> str:
    """The split of a group: the same in every corpus, whatever else that holds."""
    digest = hashlib.sha256(f"split {group}".encode()).digest()
    point = int.from_bytes(digest[:8], "big") / 2.0**64
    for name, fraction in FRACTIONS.items():
        if point < fraction:
            return name
        point -= fraction
    return next(iter(FRACTIONS))
