"""E13: images made of windows by each way of joining them, and images that are not."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from speckle_tiles import speckle

from sarhpc.measures.seams import Join, SeamReport, SeamTest, _cells, measure_seams

WINDOW_PX = 256


def layout(rng: np.random.Generator, size: int) -> np.ndarray:
    """Mean backscatter (size, size): walls before shadows on even ground."""
    sigma0 = np.full((size, size), 0.05)
    for _ in range(size * size // 1500):
        row, col = rng.integers(0, size - 30, 2)
        height = rng.integers(8, 20)
        sigma0[row : row + height, col : col + 4] = 1.0
        sigma0[row : row + height, col + 4 : col + 18] = 0.003
    return sigma0


def stitched(
    sigma0: np.ndarray, rng: np.random.Generator, overlap: int, *, feather: bool = False
) -> tuple[np.ndarray, list[Join]]:
    """Amplitude of windows of 256 px with independent speckle, averaged where they overlap."""
    starts = range(0, len(sigma0) - WINDOW_PX + 1, WINDOW_PX - overlap)
    weight = np.ones(WINDOW_PX)
    if feather:
        weight[:overlap] = np.linspace(0, 1, overlap + 2)[1:-1]
        weight[-overlap:] = weight[:overlap][::-1]
    total, norm = np.zeros_like(sigma0), np.zeros_like(sigma0)
    for row in starts:
        for col in starts:
            window = np.s_[row : row + WINDOW_PX, col : col + WINDOW_PX]
            A = np.abs(np.sqrt(sigma0[window]) * speckle(rng, WINDOW_PX))
            total[window] += np.outer(weight, weight) * A
            norm[window] += np.outer(weight, weight)
    return total / norm, [Join(axis, start, overlap) for start in starts[1:] for axis in (0, 1)]


def named(report: SeamReport, name: str) -> SeamTest:
    return next(test for test in report.tests if test.name == name)


@pytest.mark.parametrize("feather", [False, True])
def test_averaged_overlaps_fail_by_their_looks(feather: bool) -> None:
    rng = np.random.default_rng(0)
    image, joins = stitched(layout(rng, 640), rng, 64, feather=feather)
    report = measure_seams(image, joins)
    assert not report.passed
    looks = named(report, "looks")
    assert looks.p_value < 1e-6
    # The mean of two Rayleigh amplitudes has E[I] = 1/2 + pi/8 and E[I^2] = (10 + 3 pi) / 16: its
    # ENL is 1.91; in a feather at the middle of the overlap.
    assert math.exp(looks.joins - looks.controls) == pytest.approx(1.91, abs=0.25)


def test_windows_that_abut_fail_by_their_continuity() -> None:
    rng = np.random.default_rng(1)
    image, joins = stitched(layout(rng, 768), rng, 0)
    report = measure_seams(image, joins)
    assert not report.passed
    assert named(report, "continuity").joins < named(report, "continuity").controls - 0.1


def test_windows_of_other_gain_fail_by_their_steps() -> None:
    image = np.abs(speckle(np.random.default_rng(2), 1024))
    image[:, 256:512] *= 10 ** (1 / 20)
    joins = [Join(1, 256, 0), Join(1, 512, 0)]
    report = measure_seams(image, joins)
    assert named(report, "step").p_value < 1e-3
    assert named(report, "step").joins == pytest.approx(1, abs=0.4)
    assert named(report, "continuity").p_value > 0.01
    assert not report.passed


@functools.cache
def scene(seed: int) -> np.ndarray:
    """Amplitude of 640 x 640 px without a join; tests read it."""
    rng = np.random.default_rng(seed)
    return np.abs(np.sqrt(layout(rng, 640)) * speckle(rng, 640))


@pytest.mark.parametrize("width", [0, 8, 64])
def test_a_seamless_scene_passes(width: int) -> None:
    """Eight scenes at a test level of 1 %: more than one failure has a probability of 0.3 %."""
    joins = [Join(axis, at, width) for at in (192, 384) for axis in (0, 1)]
    assert sum(measure_seams(scene(seed), joins).passed for seed in range(8)) >= 7


@pytest.mark.long
@pytest.mark.parametrize("width", [0, 64])
def test_false_alarms_keep_to_the_test_level(width: int) -> None:
    alarms = {0.05: 0, 0.01: 0}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        image = np.abs(np.sqrt(layout(rng, 640)) * speckle(rng, 640))
        joins = [Join(axis, at, width) for at in (192, 384) for axis in (0, 1)]
        for level in alarms:
            alarms[level] += not measure_seams(image, joins, level).passed
    print(f"false alarms in 200 seamless scenes, joins of {width} px: {alarms}")
    # Cells of one object are not independent: up to twice the level, and three deviations.
    for level, count in alarms.items():
        assert count <= 400 * level + 3 * math.sqrt(400 * level)


def test_overlaps_may_differ_in_width() -> None:
    rng = np.random.default_rng(3)
    image = np.abs(speckle(rng, 640))
    report = measure_seams(image, [Join(1, 160, 16), Join(1, 400, 64)])
    assert report.passed
    assert named(report, "looks").cells[0] == 2 * 640 // 32
    image[:, 160:176] = (image[:, 160:176] + np.abs(speckle(rng, 640))[:, :16]) / 2
    image[:, 400:464] = (image[:, 400:464] + np.abs(speckle(rng, 640))[:, :64]) / 2
    assert not measure_seams(image, [Join(1, 160, 16), Join(1, 400, 64)]).passed


def test_cells_are_whole_and_not_where_windows_of_the_other_axis_meet() -> None:
    rng = np.random.default_rng(5)
    image = np.sqrt(rng.exponential(size=(351, 640)))
    report = measure_seams(image, [Join(1, 160, 16), Join(1, 400, 64), Join(0, 100, 20)])
    # 10 cells of 32 rows less one; of 20 cells of 32 columns one and three are crossed.
    assert named(report, "looks").cells[0] == 2 * (10 - 1) + (20 - 1 - 3)


def test_looks_and_levels_of_an_overlap_are_against_the_mean_of_both_sides() -> None:
    rng = np.random.default_rng(6)
    intensity = rng.gamma(4, 1 / 4, size=(1024, 512))
    intensity[:, 256:288] = rng.gamma(16, 1 / 16, size=(1024, 32)) * 10**0.2
    intensity[:, 288:] *= 10**0.6
    report = measure_seams(np.sqrt(intensity), [Join(1, 256, 32)])
    looks, level, step = (named(report, name) for name in ("looks", "level", "step"))
    assert looks.joins == pytest.approx(math.log(4), abs=0.1)
    assert looks.controls == pytest.approx(0, abs=0.1)
    # The median of 16 looks lies 0.27 dB higher below their mean than that of 4.
    assert level.joins == pytest.approx(2 - (0 + 6) / 2 + 0.27, abs=0.15)
    assert step.joins == pytest.approx(6, abs=0.15)
    assert level.controls == pytest.approx(0, abs=0.15)


def test_a_cell_has_the_rows_from_its_start_on() -> None:
    image = np.arange(64 * 8.0).reshape(64, 8)
    cells = _cells(image, 2, 3, np.array([4, 32]))
    np.testing.assert_array_equal(cells, [image[4:36, 2:5], image[32:64, 2:5]])


IMAGE = np.abs(speckle(np.random.default_rng(4), 256))


@pytest.mark.parametrize(
    ("joins", "message"),
    [
        ([], "no joins"),
        ([Join(2, 100, 16)], "axis must be"),
        ([Join(1, 100, 4)], "at least 8 px, or 0"),
        ([Join(1, 240, 16)], "do not fit in 256 px"),
        ([Join(1, 8, 16)], "do not fit in 256 px"),
        ([Join(1, 100, 16)], "8 cells of 32 px at joins"),
        ([Join(1, s, 32) for s in range(32, 224, 32)], "0 between them"),
    ],
)
def test_joins_that_cannot_be_tested_are_refused(joins: list[Join], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_seams(IMAGE, joins)
