"""E6 against scikit-image, and directions apart."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from speckle_tiles import scene

from sarhpc.measures.defects import gained
from sarhpc.measures.levels import measure_levels
from sarhpc.measures.spectrum import measure_spectrum
from sarhpc.measures.texture import (
    DIRECTIONS,
    DISTANCES_PX,
    FEATURES,
    LEVELS,
    cooccurrence,
    measure_texture,
    overall,
    quantise,
    texture_distance,
)


def tile(seed: int, size: int = 96) -> np.ndarray:
    return scene(np.random.default_rng(seed), size)


ANGLES = {"range": 0.0, "diagonal": math.pi / 4, "azimuth": math.pi / 2}
ANGLES["antidiagonal"] = 3 * math.pi / 4
"""scikit-image counts rows downwards by the sine and columns by the cosine of the angle."""


@pytest.mark.parametrize("shape", [(96, 96), (64, 41)])
def test_features_equal_those_of_scikit_image(shape: tuple[int, int]) -> None:
    feature = pytest.importorskip("skimage.feature")
    A = tile(0)[: shape[0], : shape[1]]
    found, codes = measure_texture(A), quantise(A).astype(np.uint8)
    for d, name in enumerate(DIRECTIONS):
        # scikit-image counts a diagonal step by its length.
        length = math.sqrt(2) if "diagonal" in name else 1.0
        steps = [distance * length for distance in DISTANCES_PX]
        matrix = feature.graycomatrix(
            codes, steps, [ANGLES[name]], LEVELS, symmetric=True, normed=True
        )
        for f, prop in enumerate(FEATURES):
            expected = feature.graycoprops(matrix, prop)[:, 0]
            np.testing.assert_allclose(found[d, :, f], expected, atol=1e-9, rtol=1e-9)


def test_levels_are_steps_of_1_5_db_around_the_median() -> None:
    db = np.repeat(np.arange(-40.0, 41.0), 16).reshape(36, 36)
    db += 0.25 * np.sign(db)  # the median stays 0, and no level is at an edge but the median
    codes = quantise(10 ** ((db + 3) / 20))
    expected = np.clip(np.floor(db / 1.5) + 16, 0, 31)
    np.testing.assert_array_equal(codes[db != 0], expected[db != 0])


def test_a_gain_changes_no_texture() -> None:
    A = tile(1)
    np.testing.assert_allclose(measure_texture(A), measure_texture(gained(A, 6)), rtol=0.01)


def test_turning_a_tile_swaps_range_and_azimuth() -> None:
    A = tile(2)
    found, turned = measure_texture(A), measure_texture(np.rot90(A))
    names = list(DIRECTIONS)
    for one, other in (("range", "azimuth"), ("diagonal", "antidiagonal")):
        np.testing.assert_allclose(found[names.index(one)], turned[names.index(other)])


def test_a_defect_along_range_is_found_along_range() -> None:
    """Columns in another order within blocks of 8: pixels along azimuth stay beside each other."""
    order = np.arange(96).reshape(-1, 8)[:, [3, 6, 1, 4, 7, 2, 5, 0]].ravel()
    real = np.array([measure_texture(tile(n)) for n in range(8)])
    mixed = np.array([measure_texture(tile(n)[:, order]) for n in range(8)])
    apart = dict(zip(DIRECTIONS, texture_distance(mixed, real), strict=True))
    assert apart["range"] > 2
    assert apart["azimuth"] == pytest.approx(0, abs=1e-9)


def test_the_distance_is_the_shift_over_the_spread() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(6, 4, 3, 5))
    shifted = real + 2 * real.std(0)
    np.testing.assert_allclose(texture_distance(shifted, real), 2)
    only_azimuth = real.copy()
    only_azimuth[:, 2, 0, 0] += real[:, 2, 0, 0].std()
    found = texture_distance(only_azimuth, real)
    np.testing.assert_allclose(found, [0, 0, math.sqrt(1 / 15), 0], atol=1e-12)
    assert overall(found) == pytest.approx(math.sqrt(1 / 60))


def test_a_tile_of_weight_two_is_two_tiles() -> None:
    rng = np.random.default_rng(1)
    g, r = rng.normal(size=(2, 4, 3, 5)), rng.normal(size=(3, 4, 3, 5))
    twice = texture_distance(g[[0, 1, 1]], r[[0, 0, 1, 2]])
    weighed = texture_distance(g, r, np.array([1, 2]) / 3, np.array([2, 1, 1]) / 4)
    np.testing.assert_allclose(twice, weighed)


def test_what_has_no_texture_is_refused() -> None:
    with pytest.raises(ValueError, match="one value"):
        measure_texture(np.ones((64, 64)))
    with pytest.raises(ValueError, match="at least 32 x 32"):
        measure_texture(tile(0)[:20])
    with pytest.raises(ValueError, match="pass 1 and 2"):
        texture_distance(np.zeros((1, 4, 3, 5)), np.zeros((1, 4, 3, 5)))
    with pytest.raises(ValueError, match="0 generated and 2 real tiles"):
        texture_distance(np.zeros((0, 4, 3, 5)), np.zeros((2, 4, 3, 5)))
    with pytest.raises(ValueError, match="all alike"):
        texture_distance(np.zeros((1, 4, 3, 5)), np.zeros((2, 4, 3, 5)))
    for step in ((40, 0), (0, 40), (0, -40), (-1, 0)):
        with pytest.raises(ValueError, match="leaves no pair in 40 x 40 px"):
            cooccurrence(np.zeros((40, 40), np.intp), *step)


def test_one_tile_alone_has_the_spread_of_all() -> None:
    real = np.random.default_rng(2).normal(size=(3, 4, 3, 5))
    found = texture_distance(real[1:2], real, None, np.array([1.0, 0.0, 0.0]))
    shift = (real[1] - real[0]) / real.std(0)
    np.testing.assert_allclose(found, np.sqrt(np.square(shift).mean((1, 2))))


def test_levels_spectrum_and_texture_take_less_than_50_ms_for_a_tile_of_512_px() -> None:
    A = np.sqrt(np.random.default_rng(0).exponential(size=(512, 512)))
    spent = []
    for _ in range(5):
        begin = time.process_time()
        for measure in (measure_levels, measure_spectrum, measure_texture):
            measure(A)
        spent.append(time.process_time() - begin)
    print(f"E3, E5 and E6 of a tile of 512 px: {1e3 * min(spent):.0f} ms")
    assert min(spent) < 0.05
