"""E13: seams of an image made of windows: its joins compared with the rest of the same image.

Where windows overlap and their amplitudes are averaged, speckle is smoother: two independent
single-look fields have an ENL of 1.91. Where windows abut, speckle is not correlated across the
join. Joins are cut into cells along their length; what a cell shows against its neighbours across
the join is compared, by rank, with control cells placed likewise between the joins, so that what
the scene does by itself is on both sides of the comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from sarhpc.measures.amplitude import Array, checked_amplitude

CELL_PX = 32
"""Length of a cell along its join, and its greatest width across."""
LEAST_OVERLAP_PX = 8
LEAST_CELLS = 20
"""Cells at joins, and control cells, below which nothing is tested."""
BLOCK_PX = 8
TINY = float(np.finfo(float).tiny)
ALTERNATIVES: Mapping[str, Literal["two-sided", "greater", "less"]] = {
    "looks": "two-sided",
    "level": "two-sided",
    "step": "greater",
    "continuity": "less",
}
"""Test -> how a seam differs from the controls."""


@dataclass(frozen=True)
class Join:
    """Where two windows of an image meet, over its whole height or width."""

    axis: int
    """Axis along which the windows follow each other: 0 azimuth (rows), 1 range (columns)."""
    start: int
    """First row or column of the overlap; of the second window where they abut."""
    width: int
    """Rows or columns of the overlap; 0 where the windows abut."""


@dataclass(frozen=True)
class SeamTest:
    """One comparison of joins and controls.

    looks: ln of ENL in the overlap over ENL beside it; level: dB in the overlap less dB beside it;
    step: |dB after - dB before| the join; continuity: correlation of log amplitude across the line
    where windows abut.
    """

    name: str
    joins: float
    """Median over the cells of the joins."""
    controls: float
    """Median over the control cells."""
    cells: tuple[int, int]
    """Numbers of cells of joins and of controls."""
    p_value: float
    """Of Mann and Whitney's rank test (Ann. Math. Stat. 18(1) 1947)."""


@dataclass(frozen=True)
class SeamReport:
    """All comparisons, at one test level for the whole image."""

    tests: tuple[SeamTest, ...]
    level: float

    @property
    def passed(self) -> bool:
        """Whether no test shows a seam, with Bonferroni's correction for their number."""
        return all(test.p_value >= self.level / len(self.tests) for test in self.tests)


def measure_seams(
    amplitude: NDArray[Any], joins: Sequence[Join], level: float = 0.01
) -> SeamReport:
    """Whether an image (H, W) of linear amplitude shows its joins, at test level `level`.

    Raises:
        ValueError: no joins; a join outside the image, or an overlap of 1 to 7 px; too few cells at
            joins or between them; NaN, negative or constant values.
    """
    A = checked_amplitude(amplitude, 2 * CELL_PX)
    _check(A.shape, joins)
    found: dict[str, tuple[list[Array], list[Array]]] = {}
    for axis in (0, 1):
        image = np.asarray(A if axis == 1 else A.T, np.float64)
        mine = [join for join in joins if join.axis == axis]
        clear = _clear_cells(image.shape[0], [join for join in joins if join.axis != axis])
        for join in mine:
            starts = _control_starts(join, mine, image.shape[1])
            for side, places in ((0, [join.start]), (1, starts)):
                for start in places:
                    for name, values in _compare(image, start, join.width, clear):
                        found.setdefault(name, ([], []))[side].append(values)
    pooled = {n: (_joined(of), _joined(control)) for n, (of, control) in found.items()}
    return SeamReport(tuple(_rank_test(n, *sides) for n, sides in pooled.items()), level)


def _check(shape: tuple[int, ...], joins: Sequence[Join]) -> None:
    if not joins:
        raise ValueError("no joins are given; pass where the windows of the image meet")
    for join in joins:
        if join.axis not in (0, 1):
            raise ValueError(f"{join}: axis must be 0 (azimuth) or 1 (range)")
        if 0 < join.width < LEAST_OVERLAP_PX or join.width < 0:
            raise ValueError(f"{join}: an overlap needs at least {LEAST_OVERLAP_PX} px, or 0")
        beside = _beside(join.width)
        if join.start < beside or join.start + join.width + beside > shape[join.axis]:
            raise ValueError(
                f"{join} and {beside} px to either side do not fit in {shape[join.axis]} px"
            )


def _beside(width: int) -> int:
    """Pixels to either side of a join that its cells take in."""
    return min(width, CELL_PX) if width else CELL_PX // 2


def _clear_cells(length: int, crossing: Sequence[Join]) -> NDArray[np.intp]:
    """First rows of the cells that no join of the other axis crosses."""
    starts = np.arange(0, length - CELL_PX + 1, CELL_PX)
    free = [
        all(start + CELL_PX <= j.start or start >= j.start + max(j.width, 1) for j in crossing)
        for start in starts
    ]
    return np.asarray(starts[np.array(free, bool)])


def _control_starts(join: Join, joins: Sequence[Join], length: int) -> list[int]:
    """Starts between the joins at which a join of the same width would touch none of them."""
    beside = _beside(join.width)
    extent = join.width + 2 * beside
    edges = [
        0,
        *(e for j in sorted(joins, key=_start) for e in (j.start, j.start + j.width)),
        length,
    ]
    starts: list[int] = []
    for low, high in zip(edges[::2], edges[1::2], strict=True):
        fitting = max(0, high - low) // extent
        starts += [low + n * extent + beside for n in range(fitting)]
    return starts


def _start(join: Join) -> int:
    return join.start


def _compare(
    image: Array, start: int, width: int, clear: NDArray[np.intp]
) -> Iterator[tuple[str, Array]]:
    """Name and values, cell by cell, of each comparison at columns `start` on."""
    beside = _beside(width)
    before = _cells(image, start - beside, beside, clear)
    after = _cells(image, start + width, beside, clear)
    if width:
        inside = _cells(image, start + (width - beside) // 2, beside, clear)
        looks = [_log_enl(cells) for cells in (before, inside, after)]
        levels = [_level_db(cells) for cells in (before, inside, after)]
        yield "looks", looks[1] - (looks[0] + looks[2]) / 2
        yield "level", levels[1] - (levels[0] + levels[2]) / 2
    else:
        yield "continuity", _correlation(before[:, :, -1], after[:, :, 0])
    yield "step", np.abs(_level_db(after) - _level_db(before))


def _cells(image: Array, start: int, width: int, clear: NDArray[np.intp]) -> Array:
    """Amplitude (cells, 32, width)."""
    rows = clear[:, None] + np.arange(CELL_PX)
    return np.asarray(image[:, start : start + width][rows])


def _log_enl(cells: Array) -> Array:
    """Median (cells,) of ln(mean^2 / variance) of intensity over blocks of 8 x 8 px.

    A structure of the scene spoils some blocks, not their median.
    """
    number, rows, columns = cells.shape
    across = columns // BLOCK_PX
    I = np.square(cells[:, :, : across * BLOCK_PX])  # noqa: E741 - intensity is I in every SAR text
    I = I.reshape(number, rows // BLOCK_PX, BLOCK_PX, across, BLOCK_PX)  # noqa: E741
    mean, variance = I.mean((2, 4)), I.var((2, 4), ddof=1)
    log_enl = np.log(np.maximum(mean**2, TINY) / np.maximum(variance, TINY))
    return np.asarray(np.median(log_enl.reshape(number, -1), axis=1))


def _level_db(cells: Array) -> Array:
    """Median level (cells,), dB, which a few bright scatterers do not move."""
    return np.asarray(20.0 * np.log10(np.maximum(np.median(cells, axis=(1, 2)), TINY)))


def _correlation(one: Array, other: Array) -> Array:
    """Correlation coefficients (cells,) of log amplitudes (cells, 32); 0 where one is constant."""
    a, b = (np.log(np.maximum(x, TINY)) for x in (one, other))
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    power = np.sqrt(np.square(a).sum(1) * np.square(b).sum(1))
    return np.asarray((a * b).sum(1) / np.maximum(power, TINY))


def _joined(values: Sequence[Array]) -> Array:
    return np.concatenate(values) if values else np.empty(0)


def _rank_test(name: str, joins: Array, controls: Array) -> SeamTest:
    if min(joins.size, controls.size) < LEAST_CELLS:
        raise ValueError(
            f"{joins.size} cells of {CELL_PX} px at joins and {controls.size} between them are too "
            f"few to test ({LEAST_CELLS} each); pass a larger image, or all its joins"
        )
    test = mannwhitneyu(joins, controls, alternative=ALTERNATIVES[name])
    medians = float(np.median(joins)), float(np.median(controls))
    return SeamTest(name, *medians, (joins.size, controls.size), float(test.pvalue))
