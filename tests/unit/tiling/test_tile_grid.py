"""Grid, orientation and footprints: geometry that never touches a pixel value."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from array_scenes import array_reader, stored_as, whole

from hpc.errors import DataError
from sarhpc.tiling.config import TileConfig
from sarhpc.tiling.grid import resampling_ratio, scene_frame, tile_grid
from sarhpc.tiling.orientation import (
    canonical_orientation,
    compose,
    determinant,
    inverse,
    transform,
)
from sarhpc.tiling.splits.footprint import tile_footprints

DIRECTIONS = ("+col", "-col", "+row", "-row")
AFFINE = (0.2, 0.05, 1000.0, 0.05, -0.2, 2000.0)


def frame_of(shape, pixel_m=0.35, spacing_m=0.2, **header):
    return scene_frame(
        array_reader(np.zeros(shape, np.complex64), spacing_m, **header).header, pixel_m
    )


def test_inverse_undoes_an_affine():
    assert compose(AFFINE, inverse(AFFINE)) == pytest.approx((1, 0, 0, 0, 1, 0))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_orientation_comes_back_to_the_same_pixels_on_the_same_ground(direction, mirrored):
    canonical = np.arange(6 * 9, dtype=np.float32).reshape(6, 9)
    native, affine = stored_as(canonical, AFFINE, direction, mirrored)
    frame = frame_of(native.shape, None, affine=affine, range_direction=direction)
    turned = frame.orientation.apply(native)
    expected = canonical[::-1] if mirrored else canonical
    np.testing.assert_array_equal(turned, expected)
    here = AFFINE if not mirrored else compose(AFFINE, (1, 0, 0, 0, -1, 6))
    assert frame.affine_at(0, 0) == pytest.approx(here)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_orientation_keeps_the_handedness_of_the_ground(direction):
    native, affine = stored_as(np.zeros((6, 9), np.float32), AFFINE, direction, mirrored=True)
    frame = frame_of(native.shape, None, affine=affine, range_direction=direction)
    assert np.sign(determinant(frame.affine_at(0, 0))) == np.sign(determinant(affine))
    assert determinant(frame.affine_at(0, 0)) > 0


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_canonical_window_is_found_in_the_stored_scene(direction):
    native = np.arange(6 * 9).reshape(6, 9)
    turn = canonical_orientation(direction)
    rows, cols = turn.native_window((1, 3), (2, 5), native.shape)
    part = turn.apply(native[slice(*rows), slice(*cols)])
    np.testing.assert_array_equal(part, turn.apply(native)[1:3, 2:5])


@pytest.mark.parametrize(
    ("spacing", "ratio"),
    [
        (0.2, Fraction(4, 7)),
        (0.25, Fraction(5, 7)),
        (0.35, Fraction(1)),
        (0.3501, Fraction(1)),
        (0.5, Fraction(10, 7)),
        (0.05, Fraction(1, 7)),
    ],
)
def test_ratios_are_the_small_fractions_that_fit(spacing, ratio):
    assert resampling_ratio(spacing, 0.35) == ratio


def test_any_spacing_gives_a_ratio_within_the_tolerance_and_a_true_pixel_size():
    for spacing in np.linspace(0.1, 0.52, 97):
        ratio = resampling_ratio(spacing, 0.35)
        assert float(ratio) * 0.35 / spacing == pytest.approx(1, abs=5e-4)
        frame = frame_of((900, 900), spacing_m=spacing)
        assert frame.pixel_m[0] == pytest.approx(spacing / float(ratio))
        step = determinant(frame.affine_at(0, 0)) ** 2
        assert step == pytest.approx(frame.pixel_m[0] ** 4)


def test_native_spacing_is_kept_when_no_pixel_size_is_asked():
    frame = frame_of((40, 30), None, spacing_m=2.5)
    assert frame.shape == (40, 30)
    assert frame.pixel_m == (2.5, 2.5)


def test_axes_of_different_spacing_get_square_tiles_and_follow_the_turn():
    frame = frame_of((700, 500), spacing_m=(0.25, 0.2), range_direction="+row")
    assert frame.canonical_shape == (500, 700)
    assert frame.spacing_m == (0.2, 0.25)
    assert frame.pixel_m == pytest.approx((0.35, 0.35))


@pytest.mark.parametrize("spacing", [0.0, -1.0, float("nan")])
def test_a_spacing_that_is_no_length_is_refused(spacing):
    with pytest.raises(DataError, match="spacing"):
        resampling_ratio(spacing, 0.35)


def test_the_grid_covers_what_holds_whole_tiles_and_no_more():
    grid = tile_grid(frame_of((640, 1300)), TileConfig(tile_px=100, stride_px=80))
    assert frame_of((640, 1300)).shape == (365, 742)
    assert (grid.rows, grid.cols) == (4, 9)
    assert grid.window((3, 8)) == ((240, 340), (640, 740))
    assert (3, 8) in grid
    assert (4, 0) not in grid
    assert len(set(grid.tiles())) == 36


def test_tiles_of_a_plan_run_through_blocks_once_and_lie_inside_them():
    grid = tile_grid(frame_of((2000, 2000)), TileConfig(tile_px=100, stride_px=50, block_tiles=4))
    runs = list(grid.by_block(grid.tiles()))
    assert len({block for block, _ in runs}) == len(runs)
    for block, tiles in runs:
        rows, cols = grid.block_window(block)
        windows = [grid.window(tile) for tile in tiles]
        assert (min(w[0][0] for w in windows), max(w[0][1] for w in windows)) == rows
        assert (min(w[1][0] for w in windows), max(w[1][1] for w in windows)) == cols


def test_a_tiles_affine_and_window_name_the_same_ground():
    frame = frame_of((640, 640), affine=AFFINE)
    tile = frame.affine_at(70, 140)
    row, col, height, width = frame.native_window((70, 78), (140, 148))
    assert (row, col, height, width) == (122, 245, 15, 14)
    corner = transform(tile, np.array([0.0, 0.0]))
    native = transform(inverse(AFFINE), corner)
    np.testing.assert_allclose(native, [140 * 7 / 4, 70 * 7 / 4], atol=1e-6)


def test_footprints_are_closed_densified_and_on_the_ground():
    frame = frame_of((640, 640))
    grid = tile_grid(frame, TileConfig(tile_px=128))
    outline = tile_footprints(frame, grid, [(0, 0), (1, 1)])
    assert outline.shape == (2, 17, 2)
    np.testing.assert_array_equal(outline[:, 0], outline[:, -1])
    side = 128 * 0.35
    lat = outline[0, :, 1]
    assert (lat.max() - lat.min()) * 111_132 == pytest.approx(side, rel=0.02)
    assert np.all((outline[..., 0] > 2) & (outline[..., 0] < 4))


def test_a_scene_without_crs_has_no_footprint():
    frame = frame_of((640, 640), crs=None)
    assert tile_footprints(frame, tile_grid(frame, TileConfig(tile_px=128)), [(0, 0)]) is None


def test_an_unknown_crs_or_a_place_outside_it_is_an_error_of_the_scene():
    for header in (
        {"crs": "EPSG:1"},
        {"crs": "EPSG:32631", "affine": (0.2, 0, 1e12, 0, -0.2, 1e12)},
    ):
        frame = frame_of((640, 640), **header)
        with pytest.raises(DataError, match="CRS"):
            tile_footprints(frame, tile_grid(frame, TileConfig(tile_px=128)), [(0, 0)])


def test_orientation_never_changes_a_pixel_value():
    rng = np.random.default_rng(0)
    pixels = (rng.standard_normal((8, 12)) + 1j * rng.standard_normal((8, 12))).astype(np.complex64)
    for direction in DIRECTIONS:
        reader = array_reader(pixels, range_direction=direction)
        block = whole(reader, scene_frame(reader.header, None), "none")
        assert set(block.field.ravel()) == set(pixels.ravel())
