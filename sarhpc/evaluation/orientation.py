"""E8 in an evaluation: whether real tiles show their look direction, and other sets share it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.measures.look_direction import (
    MIN_GROUPS,
    LookDirection,
    Share,
    look_direction,
    orientation,
)

Tiles = Sequence[NDArray[Any]]

MOST_TILES = 200
"""Tiles of a set that are asked: their accuracy has an error of 4 % at most."""
SIDE_PX = 256
"""Middle of a tile that is asked, so that 200 of them are held in memory."""
UNDECIDED = "undecided"


@dataclass(frozen=True)
class SetOrientation:
    """How the look direction of a set compares with that of the real tiles."""

    verdict: str
    """`as real`, `weaker than real`, `reversed` or `undecided`."""
    reason: str
    unflipped: Share | None
    """Fraction of its tiles judged unflipped; None if none was asked."""


@dataclass(frozen=True)
class Orientations:
    """The look direction of the real tiles, and of each set."""

    verdict: str
    """`shown` or `undecided`, of the real tiles."""
    reason: str
    range: Share | None = None
    """Held-out accuracy of distinguishing a real tile from its range flip."""
    azimuth: Share | None = None
    """The same for the azimuth flip, the control."""
    sets: Mapping[str, SetOrientation] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `evaluation.json`."""
        return asdict(self)

    def notes(self) -> list[str]:
        """A line on the real tiles, and one on each set that was asked."""
        real = f"E8, look direction: the real tiles are {self.verdict} ({self.reason})."
        if self.verdict == "shown":
            real = f"E8, look direction: the real tiles show theirs ({self.reason})."
        others = {name: one for name, one in self.sets.items() if one.unflipped is not None}
        return [real, *(f"E8, “{name}”: {o.verdict} ({o.reason})." for name, o in others.items())]


def asked(count: int) -> list[int]:
    """Numbers of the tiles of a set of `count` that are asked, spread evenly."""
    most = min(count, MOST_TILES)
    return sorted({int(n) for n in np.linspace(0, count - 1, most).round()}) if count else []


def middle(tile: NDArray[Any]) -> NDArray[Any]:
    """The middle 256 px of a tile (H, W), or all of one that is smaller."""
    rows, columns = (slice(max(0, (side - SIDE_PX) // 2), None) for side in tile.shape)
    return np.asarray(tile[rows, columns][:SIDE_PX, :SIDE_PX])


def judge_orientation(
    real: Tiles, groups: Sequence[Hashable], sets: Mapping[str, Tiles], steps: int, seed: int = 0
) -> Orientations:
    """Look direction of real tiles and of the sets; `undecided` with the reason where unknown.

    Args:
        real: amplitude or codes proportional to it, (H, W), range along columns.
        groups: flight line or scene of each real tile; empty where it is not known.
        sets: tiles by name of the set.
        steps: training steps of each of ten networks.
        seed: of their weights and crops.
    """
    named = set(groups) - {""}
    if len(named) < MIN_GROUPS or "" in groups:
        reason = (
            f"{len(named)} scenes or flight lines are known, and {MIN_GROUPS} are needed, so that "
            "tiles held out are of others than those learned from"
        )
        return Orientations(UNDECIDED, reason)
    try:
        found = look_direction([middle(tile) for tile in real], groups, seed=seed, steps=steps)
    except ValueError as error:
        return Orientations(UNDECIDED, str(error))
    return Orientations(
        found.verdict,
        found.reason,
        found.range,
        found.azimuth,
        {name: _of_set(found, tiles) for name, tiles in sets.items()},
    )


def _of_set(real: LookDirection, tiles: Tiles) -> SetOrientation:
    try:
        found = orientation(real, [middle(tile) for tile in tiles])
    except ValueError as error:
        return SetOrientation(UNDECIDED, str(error), None)
    return SetOrientation(found.verdict, found.reason, found.unflipped)
