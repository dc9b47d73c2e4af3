"""The proof that the splits of a plan share no ground, small enough to be stored with the plan.

Every tile keeps the buffer from cells of other splits. So it is enough to list, for every cell of
the Earth that a tile or its buffer touches, its split: if no cell has two, no two tiles of
different splits can share ground, in this archive or in any other planned with the same seed. The
digest lets two plans be compared without their tiles.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from hpc.errors import VerificationError

PROOF_SCHEMA = "sarhpc.split-proof/1"


def split_proof(
    cells: Iterable[tuple[str, str]],
    lines: Iterable[tuple[str, str]],
    *,
    by: str,
    cell_m: float,
    buffer_m: float | None,
) -> dict[str, Any]:
    """The proof as plain JSON values.

    Args:
        cells: (cell, split) of all cells that planned tiles and their buffers touch; under
            `by=line` a cell is the group of scenes that share ground.
        lines: (flight line, split) of every planned tile's scene, counted where lines matter.
        by: `split.by` of the configuration.
        cell_m: side of a cell, metres.
        buffer_m: distance tiles keep from cells of other splits, metres, so that tiles of
            different splits are twice that apart; None where each scene has its own.

    Returns:
        `contested_cells` and `contested_lines` are 0 in a plan that keeps its splits apart.
    """
    owners = _owners(cells)
    flown = _owners(lines)
    contested = sorted(cell for cell, splits in owners.items() if len(splits) > 1)
    shared = sorted(line for line, splits in flown.items() if len(splits) > 1)
    text = "\n".join(f"{cell} {' '.join(sorted(owners[cell]))}" for cell in sorted(owners))
    return {
        "schema": PROOF_SCHEMA,
        "by": by,
        "cell_m": cell_m,
        "buffer_m": None if buffer_m is None else round(buffer_m, 3),
        "cells": dict(Counter(split for splits in owners.values() for split in sorted(splits))),
        "contested_cells": len(contested),
        "lines": dict(Counter(split for splits in flown.values() for split in sorted(splits))),
        "contested_lines": len(shared),
        "examples": contested[:5] + shared[:5],
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def _owners(pairs: Iterable[tuple[str, str]]) -> Mapping[str, set[str]]:
    owners: dict[str, set[str]] = defaultdict(set)
    for name, split in pairs:
        owners[name].add(split)
    return owners


def check_proof(proof: Mapping[str, Any]) -> None:
    """Raise VerificationError unless the proof holds.

    Raises:
        VerificationError: ground, or under a split by lines a flight line, lies in two splits.
    """
    leaks = proof["contested_cells"]
    if "line" in proof["by"]:
        leaks += proof["contested_lines"]
    if leaks:
        raise VerificationError(
            f"{leaks} cells or flight lines lie in two splits ({', '.join(proof['examples'])}); "
            "the splits share ground; plan again"
        )
