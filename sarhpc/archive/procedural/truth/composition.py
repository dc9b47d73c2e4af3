"""Composition of a tile of known land cover: shares, dominant class, elements and relations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.procedural.config import LABELS

Group = Literal["water", "forest", "field", "town"]
GROUPS: dict[Group, tuple[str, ...]] = {
    "water": ("water",),
    "forest": ("forest",),
    "field": ("bare", "grass", "crop", "shrub"),
    "town": ("road", "urban"),
}
"""The four classes of evaluation and the labels each gathers."""

DOMINANT_SHARE = 0.6
"""A group that covers this much of a tile dominates it."""
TOWN_SHARE = 0.28
"""The lower threshold of streets and roofs, which have gardens between them."""
TOWN_ROOFS = 0.08
"""Least share of roofs and yards in a town; excludes motorways."""

Window = tuple[float, float, float, float]
"""First row, first column, rows and columns of a tile, in scene pixels."""
Fact = tuple[str, str, str]
"""Subject, relation, object: ("river", "crosses", "field"), ("lake", "in", "far range")."""


def class_fractions(label: NDArray[np.uint8]) -> dict[str, float]:
    """Share of each class present among the labelled pixels of `label` (H, W), by name."""
    counts = np.bincount(label.ravel(), minlength=len(LABELS))[1 : len(LABELS)]
    total = max(int(counts.sum()), 1)
    return {
        name: round(float(count) / total, 4)
        for name, count in zip(LABELS[1:], counts, strict=True)
        if count
    }


def group_fractions(fractions: Mapping[str, float]) -> dict[Group, float]:
    """Share of water, forest, field and town, from shares by class name."""
    return {
        group: sum(fractions.get(name, 0.0) for name in names) for group, names in GROUPS.items()
    }


def dominant_class(fractions: Mapping[str, float]) -> Group | None:
    """The group that dominates a tile with these shares by class name, or None.

    Town where streets and roofs cover at least 28 % with 8 % roofs; otherwise the group that
    covers at least 60 %.
    """
    groups = group_fractions(fractions)
    if groups["town"] >= TOWN_SHARE and fractions.get("urban", 0.0) >= TOWN_ROOFS:
        return "town"
    for group in ("water", "forest", "field"):
        if groups[group] >= DOMINANT_SHARE:
            return group
    return None


@dataclass(frozen=True)
class Patch:
    """Where a group lies in a tile, in fractions of its sides."""

    share: float
    row: float
    """Mean row, 0 at the top to 1."""
    col: float
    """Mean column, 0 in near range to 1 in far range."""
    sides: int
    """How many of the tile's four sides it touches along more than a tenth."""
    spans: bool
    """Whether it touches two opposite sides."""

    @property
    def place(self) -> str | None:
        """Part of the tile it lies in, None where it is spread out."""
        across, along = self.col - 0.5, self.row - 0.5
        if max(abs(across), abs(along)) < 0.14:
            return "middle" if self.share < 0.2 and self.sides == 0 else None
        if abs(across) >= abs(along):
            return "far range" if across > 0 else "near range"
        return "lower part" if along > 0 else "upper part"


def patch(label: NDArray[np.uint8], group: Group) -> Patch:
    """Where `group` lies in `label` (H, W)."""
    codes = [LABELS.index(name) for name in GROUPS[group]]
    mask = np.isin(label, codes)
    if not mask.any():
        return Patch(0.0, 0.5, 0.5, 0, False)
    rows, cols = mask.mean(axis=1), mask.mean(axis=0)
    border = max(1, label.shape[0] // 32)
    touches = [
        bool(side.mean() > 0.1)
        for side in (mask[:border], mask[-border:], mask[:, :border], mask[:, -border:])
    ]
    return Patch(
        float(mask.mean()),
        float(np.average(np.arange(rows.size) + 0.5, weights=rows) / rows.size),
        float(np.average(np.arange(cols.size) + 0.5, weights=cols) / cols.size),
        sum(touches),
        (touches[0] and touches[1]) or (touches[2] and touches[3]),
    )


def open_share(label: NDArray[np.uint8], group: Group) -> float:
    """Share of `label` (H, W) in blocks of 16 x 16 px that `group` fills: gaps do not count."""
    block = 16
    rows, cols = (n // block for n in label.shape)
    codes = [LABELS.index(name) for name in GROUPS[group]]
    mask = np.isin(label[: rows * block, : cols * block], codes)
    filled = mask.reshape(rows, block, cols, block).mean(axis=(1, 3)) > 0.75
    return float(filled.mean()) if filled.size else 0.0


def crosses(line: Sequence[Sequence[float]], window: Window) -> bool:
    """Whether a course through the points (row, col) runs right across the window."""
    places = _within(np.array(line, dtype=np.float64), window, slack=0.02)
    if len(places) < 2:
        return False
    reach = np.ptp(places, axis=0)
    return bool(np.hypot(*reach) > 0.65)


def _within(points: NDArray[np.float64], window: Window, slack: float) -> NDArray[np.float64]:
    """The points inside the window, densified, in fractions of its sides (N, 2)."""
    relative = (points - window[:2]) / window[2:]
    t = np.linspace(0, len(points) - 1, 8 * len(points))
    index = np.arange(len(points))
    dense = np.stack([np.interp(t, index, relative[:, axis]) for axis in (0, 1)], axis=1)
    return dense[((dense > -slack) & (dense < 1 + slack)).all(axis=1)]


def objects_within(
    objects: Sequence[Mapping[str, Any]], kind: str, window: Window
) -> list[Mapping[str, Any]]:
    """The objects of `kind` with their centre in the window."""
    row, col, rows, cols = window
    return [
        thing
        for thing in objects
        if thing["kind"] == kind
        and row <= thing.get("row", -1e9) < row + rows
        and col <= thing.get("col", -1e9) < col + cols
    ]


def courses_across(
    objects: Sequence[Mapping[str, Any]], kind: str, window: Window
) -> list[Mapping[str, Any]]:
    """The rivers, roads or paths that run right across the window."""
    return [
        thing
        for thing in objects
        if thing["kind"] == kind and crosses(thing.get("line", ()), window)
    ]
