"""A scene whose rows and columns differ in everything: number, spacing, ratio and direction."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from array_scenes import array_reader

from hpc.errors import DataError
from sarhpc.tiling.config import TileConfig
from sarhpc.tiling.grid import (
    MAX_UPSAMPLING,
    SceneFrame,
    TileGrid,
    resampling_ratio,
    scene_frame,
    tile_grid,
)

SPACING = (0.7, 0.175)
"""Rows twice, columns half as far apart as output pixels."""
SHAPE = (30, 200)


def frame_of(direction: str = "+col", **header: object) -> SceneFrame:
    pixels = np.broadcast_to(np.complex64(0), SHAPE)
    affine = (0.175, 0.0, 1000.0, 0.0, -0.7, 2000.0)
    reader = array_reader(pixels, SPACING, range_direction=direction, affine=affine, **header)
    return scene_frame(reader.header, 0.35)


def test_each_axis_has_its_own_ratio_and_extent() -> None:
    frame = frame_of()
    assert frame.ratio == (Fraction(2), Fraction(1, 2))
    assert frame.shape == (60, 100)
    assert frame.pixel_m == (0.35, 0.35)
    assert frame.spacing_m == SPACING
    turned = frame_of("+row")
    assert turned.ratio == (Fraction(1, 2), Fraction(2))
    assert turned.shape == (100, 60)
    assert turned.spacing_m == SPACING[::-1]


def test_the_ratio_that_needs_leave_is_the_one_that_the_configuration_names() -> None:
    assert MAX_UPSAMPLING == 1.5, "as tile.allow_upsampling says"


def test_the_affine_of_a_window_starts_at_its_first_pixel() -> None:
    # Output pixel (row 10, col 6) starts at native (row 5, col 12).
    a, b, c, d, e, f = frame_of().affine_at(10, 6)
    assert (a, b, d, e) == pytest.approx((0.35, 0, 0, -0.35))
    assert (c, f) == pytest.approx((1000 + 12 * 0.175, 2000 - 5 * 0.7))
    assert frame_of().window_affine((10, 14), (6, 12)) == pytest.approx((a, b, c, d, e, f))


def test_positions_of_a_window_are_columns_and_rows() -> None:
    frame = frame_of()
    found = frame.to_map(np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0]]), (10, 6))
    x, y = 1000 + 12 * 0.175, 2000 - 5 * 0.7
    assert found == pytest.approx(np.array([[x, y], [x + 0.7, y], [x, y - 1.4]]))
    assert frame.to_map(np.array([[6.0, 10.0]])) == pytest.approx(np.array([[x, y]]))
    assert frame.affine_error_m((10, 14), (6, 12)) == pytest.approx(0, abs=1e-9)


def test_windows_cover_every_native_pixel_they_touch() -> None:
    frame = frame_of()
    assert frame.canonical_window((11, 14), (6, 9)) == ((5, 7), (12, 18))
    assert frame.native_window((11, 14), (6, 9)) == [5, 12, 2, 6]
    # Range along stored rows: canonical columns are stored rows.
    assert frame_of("+row").native_window((0, 3), (0, 4))[2:] == [2, 6]


GRID = TileGrid(rows=5, cols=7, tile_px=32, stride_px=20, block_tiles=3)


def test_tiles_start_a_stride_apart_and_blocks_hold_theirs() -> None:
    assert GRID.window((2, 5)) == ((40, 72), (100, 132))
    assert GRID.block_of((2, 5)) == (0, 1)
    assert GRID.block_window((0, 0)) == ((0, 72), (0, 72))
    assert GRID.block_window((1, 2)) == ((60, 112), (120, 152)), "the last ones are smaller"


@pytest.mark.parametrize(
    ("tile", "inside"),
    [((0, 0), True), ((4, 6), True), ((5, 6), False), ((4, 7), False), ((-1, 0), False),
     ((0, -1), False)],
)  # fmt: skip
def test_a_grid_knows_its_tiles(tile: tuple[int, int], inside: bool) -> None:
    assert (tile in GRID) is inside


def test_tiles_come_block_by_block_and_row_by_row() -> None:
    found = [tuple(tile) for tile in GRID.tiles()]
    assert found[:9] == [(row, col) for row in range(3) for col in range(3)]
    assert found[9:12] == [(0, 3), (0, 4), (0, 5)]
    assert found[21:23] == [(3, 0), (3, 1)]
    assert len(set(found)) == 35
    assert GRID.indices().tolist() == [list(tile) for tile in found]


@pytest.mark.parametrize(
    ("tile_px", "stride", "count"),
    [
        (60, None, (1, 1)),
        (61, None, (0, 1)),
        (50, 10, (2, 6)),
        (20, None, (3, 5)),
        (101, 1, (0, 0)),
    ],
)
def test_a_grid_holds_the_tiles_that_fit_whole(
    tile_px: int, stride: int | None, count: tuple[int, int]
) -> None:
    grid = tile_grid(frame_of(), TileConfig(tile_px=tile_px, stride_px=stride))
    assert (grid.rows, grid.cols) == count
    assert grid.stride_px == (stride or tile_px)


@pytest.mark.parametrize(
    ("spacing", "pixel", "ratio"),
    [
        (0.35 * 1.0004, 0.35, Fraction(1)),
        (0.35 * 1.0006, 0.35, Fraction(910, 909)),
        (1.0, 3.0, Fraction(1, 3)),
        (1000.26, 1.0, Fraction(1000)),
        (0.123, None, Fraction(1)),
    ],
)
def test_a_ratio_is_the_smallest_within_its_tolerance(
    spacing: float, pixel: float | None, ratio: Fraction
) -> None:
    assert resampling_ratio(spacing, pixel) == ratio


@pytest.mark.parametrize("spacing", [float("inf"), 0.0, -0.35])
def test_a_spacing_of_no_length_is_refused(spacing: float) -> None:
    with pytest.raises(DataError, match="is not positive"):
        resampling_ratio(spacing, 0.35)


class Curved:
    """Map coordinates that grow with the square of native columns and rows."""

    def to_map(self, positions: np.ndarray) -> np.ndarray:
        return positions**2 * (0.04, 0.01)


def test_a_curved_window_gets_the_best_affine_over_itself_and_its_largest_deviation() -> None:
    # Over five even steps t the best line to t^2 is 4 t - 2, and leaves 2, -1, -2, -1, 2.
    frame = dataclasses.replace(frame_of(), placement=Curved())
    rows, cols = (10, 18), (20, 36)
    affine = frame.window_affine(rows, cols)
    # Output column 20 + 4 t is native column 40 + 8 t, output row 10 + 2 t native row 5 + t.
    east = 0.04 * (40**2 - 2 * 8**2), 0.04 * (2 * 40 * 8 + 4 * 8**2) / 4
    north = 0.01 * (5**2 - 2), 0.01 * (2 * 5 + 4) / 2
    np.testing.assert_allclose(affine, (east[1], 0, east[0], 0, north[1], north[0]), atol=1e-9)
    deviation = np.hypot(0.04 * 2 * 8**2, 0.01 * 2)
    assert frame.affine_error_m(rows, cols) == pytest.approx(deviation)


class Bent:
    """Map coordinates that grow with the cube: the far end of a window bends more than the near."""

    def to_map(self, positions: np.ndarray) -> np.ndarray:
        return positions**3 * (0.04, 0.01)


@pytest.mark.parametrize("turned", [False, True])
def test_the_deviation_is_the_largest_anywhere_in_the_window(turned: bool) -> None:
    frame = dataclasses.replace(frame_of(), placement=Bent())
    rows, cols = ((10, 42), (20, 36)) if not turned else ((10, 18), (20, 84))
    missed = []
    for (first, last), scale, native in ((cols, 0.04, 2.0), (rows, 0.01, 0.5)):
        t = np.linspace(first, last, 5)
        truth = scale * (t * native) ** 3
        missed.append(np.abs(truth - np.polyval(np.polyfit(t, truth, 1), t)).max())
    found = frame.affine_error_m(rows, cols)
    assert found == pytest.approx(np.hypot(*missed), rel=1e-6)
