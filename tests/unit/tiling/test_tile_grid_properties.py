"""Laws of the grid algebra that must hold for every scene, spacing, orientation and tile size."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from split_oracles import footprint_split

from sarhpc.archive.geolocation import fit_affine, lattice
from sarhpc.archive.scene import SarHeader
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.grid import resampling_ratio, scene_frame, tile_grid
from sarhpc.tiling.orientation import (
    Orientation,
    canonical_orientation,
    compose,
    determinant,
    inverse,
    transform,
)
from sarhpc.tiling.resampling import intensity_taps, needed_input
from sarhpc.tiling.splits.assignment import SPLITS, cells_near, split_of

settings.register_profile("grid", deadline=None, derandomize=True, max_examples=80)
settings.load_profile("grid")

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
directions = st.sampled_from(["+col", "-col", "+row", "-row"])
orientations = st.builds(Orientation, st.booleans(), st.booleans(), st.booleans())
sizes = st.integers(1, 60)
shapes = st.tuples(sizes, sizes)
ratios = st.fractions(Fraction(1, 9), Fraction(3, 2), max_denominator=20)


@st.composite
def affines(draw):
    """Pixels of 0.1 to 30 m, turned by any angle, mirrored or not, up to 10 000 km away."""
    step = st.floats(0.1, 30)
    angle, mirror = draw(st.floats(0, 2 * np.pi)), draw(st.sampled_from([1, -1]))
    col, row = draw(step), draw(step) * mirror
    origin = st.floats(-1e7, 1e7)
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    return (cos * col, -sin * row, draw(origin), sin * col, cos * row, draw(origin))


@st.composite
def frames(draw):
    """A scene of up to 400 pixels a side and its frame at some output spacing."""
    side = st.integers(1, 400)
    affine = draw(affines())
    header = SarHeader(
        shape=(draw(side), draw(side)),
        is_complex=True,
        affine=affine,
        crs=None,
        spacing_m=(float(np.hypot(affine[1], affine[4])), float(np.hypot(affine[0], affine[3]))),
        range_direction=draw(directions),
        looks=1.0,
        calibration="sigma0",
    )
    finest = max(header.spacing_m)
    return scene_frame(header, draw(st.one_of(st.none(), st.floats(finest * 0.7, finest * 4))))


@given(affines())
def test_an_affine_and_its_inverse_are_the_identity_in_either_order(affine):
    for both in (compose(affine, inverse(affine)), compose(inverse(affine), affine)):
        assert both == pytest.approx(IDENTITY, abs=1e-5)


@given(affines(), affines(), affines())
def test_composition_is_associative_and_multiplies_areas(one, two, three):
    left, right = compose(compose(one, two), three), compose(one, compose(two, three))
    assert left == pytest.approx(right, rel=1e-9, abs=1e-3)
    assert determinant(compose(one, two)) == pytest.approx(determinant(one) * determinant(two))


@given(affines(), st.floats(0, 30_000), st.floats(0, 30_000))
def test_a_position_goes_to_the_map_and_back(affine, col, row):
    there = transform(affine, np.array([col, row]))
    assert transform(inverse(affine), there) == pytest.approx([col, row], abs=1e-4)


@given(orientations, shapes)
def test_a_turn_and_its_affine_move_every_pixel_alike(turn, native):
    image = np.arange(native[0] * native[1]).reshape(native)
    canonical = turn.apply(image)
    assert canonical.shape == turn.shape(native)
    rows, cols = np.indices(canonical.shape)
    centres = np.stack([cols + 0.5, rows + 0.5], axis=-1)
    place = np.floor(transform(turn.native_affine(native), centres)).astype(int)
    assert np.array_equal(image[place[..., 1], place[..., 0]], canonical)


@given(directions, shapes)
def test_canonicalisation_composed_with_its_inverse_is_the_identity(direction, native):
    turn = canonical_orientation(direction)
    there = turn.native_affine(native)
    assert compose(inverse(there), there) == pytest.approx(IDENTITY)
    # All four turns are rotations: the ground is never mirrored.
    assert determinant(there) == 1
    image = np.arange(native[0] * native[1]).reshape(native)
    canonical = turn.apply(image)
    flips = np.s_[:: -1 if turn.flip_rows else 1, :: -1 if turn.flip_cols else 1]
    back = canonical[flips].T if turn.transpose else canonical[flips]
    assert np.array_equal(back, image)


@given(orientations, shapes, st.data())
def test_a_canonical_window_is_read_from_its_native_one(turn, native, data):
    image = np.arange(native[0] * native[1]).reshape(native)
    canonical = turn.apply(image)
    window = []
    for size in canonical.shape:
        first = data.draw(st.integers(0, size - 1))
        window.append((first, data.draw(st.integers(first + 1, size))))
    rows, cols = turn.native_window(*window, native)
    part = turn.apply(image[slice(*rows), slice(*cols)])
    assert np.array_equal(part, canonical[slice(*window[0]), slice(*window[1])])


@given(frames(), st.integers(8, 90), st.integers(8, 90), st.integers(1, 4))
def test_every_pixel_lies_in_exactly_one_core_window(frame, tile_px, stride, blocks):
    """The core of a tile is its first `stride` pixels: cores tile the plane without overlap."""
    stride = min(stride, tile_px)
    grid = tile_grid(frame, TileConfig(tile_px=tile_px, stride_px=stride, block_tiles=blocks))
    seen = np.zeros(frame.shape, int)
    for tile in grid.tiles():
        (row, last_row), (col, last_col) = grid.window(tile)
        assert last_row - row == last_col - col == tile_px
        assert last_row <= frame.shape[0]
        assert last_col <= frame.shape[1]
        seen[row : row + stride, col : col + stride] += 1
    assert np.all(seen[: grid.rows * stride, : grid.cols * stride] == 1)
    assert seen.sum() == grid.rows * grid.cols * stride**2
    for size, count in zip(frame.shape, (grid.rows, grid.cols), strict=True):
        # No room is left for one more tile.
        assert count * stride + tile_px > size


@given(frames(), st.integers(8, 50), st.integers(8, 70), st.integers(1, 4))
def test_every_tile_lies_in_its_one_block(frame, tile_px, stride, blocks):
    grid = tile_grid(frame, TileConfig(tile_px=tile_px, stride_px=stride, block_tiles=blocks))
    tiles = list(grid.tiles())
    assert len(set(tiles)) == len(tiles) == grid.rows * grid.cols
    found = [tile for _, run in grid.by_block(tiles) for tile in run]
    assert found == tiles
    assert len(list(grid.by_block(tiles))) == len({grid.block_of(tile) for tile in tiles})
    for tile in tiles:
        for inner, outer in zip(
            grid.window(tile), grid.block_window(grid.block_of(tile)), strict=True
        ):
            assert outer[0] <= inner[0] < inner[1] <= outer[1]


@given(frames(), st.integers(0, 500), st.integers(0, 500))
def test_a_tiles_affine_is_the_scenes_moved_to_its_corner(frame, row, col):
    whole, part = frame.affine_at(0, 0), frame.affine_at(row, col)
    moved = compose(whole, (1.0, 0.0, float(col), 0.0, 1.0, float(row)))
    assert part == pytest.approx(moved, rel=1e-9, abs=1e-4)
    assert frame.window_affine((row, row + 9), (col, col + 7)) == part
    # Handedness is that of the scene as stored, and the pixel has the size that is recorded.
    assert np.sign(determinant(part)) == np.sign(determinant(frame.native_affine))
    assert abs(determinant(part)) == pytest.approx(frame.pixel_m[0] * frame.pixel_m[1], rel=1e-6)


@given(frames())
def test_output_pixels_keep_the_corners_of_the_scene(frame):
    """The frame begins at a corner of the stored image, and ends inside it."""
    height, width = frame.native_shape
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)], float)
    stored = transform(frame.native_affine, corners)
    first = transform(frame.affine_at(0, 0), np.zeros(2))
    assert np.abs(stored - first).sum(axis=1).min() < 1e-4
    rows, cols = frame.shape
    back = transform(
        inverse(frame.native_affine),
        transform(frame.affine_at(0, 0), np.array([float(cols), float(rows)])),
    )
    assert -1e-4 <= back[0] <= width + 1e-4
    assert -1e-4 <= back[1] <= height + 1e-4


@given(frames(), st.data())
def test_the_native_window_of_a_tile_lies_in_the_scene_and_holds_its_ground(frame, data):
    if min(frame.shape) < 1:
        return
    row, col = (data.draw(st.integers(0, size - 1)) for size in frame.shape)
    window = (row, row + 1), (col, col + 1)
    row0, col0, rows, cols = frame.native_window(*window)
    assert 0 <= row0 < row0 + rows <= frame.native_shape[0]
    assert 0 <= col0 < col0 + cols <= frame.native_shape[1]
    corners = lattice((0, 0), (1, 1))
    native = transform(inverse(frame.native_affine), transform(frame.affine_at(row, col), corners))
    assert np.all(native.min(axis=0) >= np.array([col0, row0]) - 1e-3)
    assert np.all(native.max(axis=0) <= np.array([col0 + cols, row0 + rows]) + 1e-3)


@given(st.floats(0.01, 50), st.floats(0.05, 50))
def test_ratios_are_within_the_tolerance_for_any_spacing(spacing, pixel):
    ratio = resampling_ratio(spacing, pixel)
    assert float(ratio) * pixel / spacing == pytest.approx(1, abs=5e-4)


@given(ratios, st.integers(0, 40), st.integers(1, 40), st.integers(41, 200))
def test_intensity_kernels_sum_to_one_and_stay_inside(ratio, first, count, extent):
    output = (first, first + count)
    start, stop = needed_input(output, ratio, 0, extent)
    if start >= stop:
        return
    taps = intensity_taps(output, ratio, start, stop)
    assert taps.weight.sum(axis=1) == pytest.approx(np.ones(count), abs=1e-5)
    assert (taps.weight >= 0).all()
    assert taps.index.min() >= 0
    assert taps.index.max() < stop - start


@given(affines(), st.floats(-5e3, 5e3), st.floats(1, 2e3))
def test_an_affine_is_fitted_back_from_its_own_points(affine, corner, extent):
    inside = lattice((corner, -corner), (extent, extent))
    fitted = fit_affine(inside, transform(affine, inside))
    error = transform(fitted, inside) - transform(affine, inside)
    assert np.abs(error).max() < 1e-4


@given(
    st.floats(-180, 180),
    st.floats(-80, 80),
    st.floats(0.0005, 0.02),
    st.floats(0, 500),
    st.integers(0, 50),
)
def test_ground_near_a_tile_belongs_to_its_split(lon, lat, size, buffer_m, seed):
    """Two tiles that share a point or come within both buffers never differ in split."""
    cfg = SplitConfig(fractions=[0.5, 0.3, 0.2], cell_m=3000.0, seed=seed)
    square = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]) * size
    one = np.array([lon, lat]) + square
    split = footprint_split(one, buffer_m, cfg)
    shift = np.array([0.6, -0.7]) * size
    other = footprint_split(one + shift, buffer_m, cfg)
    assert split in (*SPLITS, None)
    if split is not None and other is not None:
        assert split == other
        assert {split_of(cell, cfg) for cell in cells_near(one, buffer_m, 3000.0)} == {split}


@given(frames(), st.floats(-1e-3, 1e-3))
def test_a_bent_scene_is_placed_by_its_own_model_in_every_window(frame, bend):
    """A placement that bends a little: a window's affine follows it better than the scene's."""

    class Bent:
        def to_map(self, positions):
            col, row = positions[..., 0], positions[..., 1]
            return np.stack([col + bend * row**2, row + bend * col**2], axis=-1)

        def to_json(self):
            return {"model": "bent"}

    bent = dataclasses.replace(frame, placement=Bent())
    rows, cols = (0, 32), (16, 48)
    reach = 32 * max(1 / float(ratio) for ratio in frame.ratio)
    assert bent.affine_error_m(rows, cols) <= abs(bend) * reach**2 + 1e-6
    there = bent.to_map(np.array([[0.0, 0.0]]), (rows[0], cols[0]))
    again = bent.to_map(np.array([[float(cols[0]), float(rows[0])]]))
    assert there == pytest.approx(again, abs=1e-6)
