"""The digest of a directory, for artefacts that are folders (models, checkpoints)."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hpc.publish import Digest, digest_file


def digest_tree(root: Path) -> Digest:
    """Total size, and SHA-256 over the names and SHA-256 of all files under `root`, sorted.

    Those of `root` itself where it is a file.
    """
    if root.is_file():
        return digest_file(root)
    total, lines = 0, []
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        digest = digest_file(path)
        total += digest.bytes
        lines.append(f"{path.relative_to(root).as_posix()} {digest.sha256}\n")
    return Digest(total, hashlib.sha256("".join(lines).encode()).hexdigest())


def tree_bytes(root: Path) -> int:
    """Total size of all files under `root`; reads none of them."""
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
