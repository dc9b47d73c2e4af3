"""Short kernels of intensity on a ramp: a ramp shows which weight goes to which pixel."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from array_scenes import array_reader

from sarhpc.tiling.grid import scene_frame
from sarhpc.tiling.resampling import (
    Taps,
    apply_taps,
    halo_px,
    intensity_taps,
    looks_factor,
    needed_input,
)

FINER = [Fraction(3, 2), Fraction(2), Fraction(7, 4), Fraction(10, 3)]
COARSER = [Fraction(1, 2), Fraction(2, 3), Fraction(4, 7), Fraction(1, 7), Fraction(1)]


def centres(output: tuple[int, int], ratio: Fraction) -> np.ndarray:
    """Native positions of the centres of output pixels, 0 at the first native centre."""
    return (np.arange(*output) + 0.5) / float(ratio) - 0.5


@pytest.mark.parametrize("ratio", FINER)
@pytest.mark.parametrize("axis", [0, 1])
def test_between_pixels_a_ramp_stays_the_ramp(ratio: Fraction, axis: int) -> None:
    output = (9, 40)
    ramp = np.arange(40, dtype=np.float32)
    image = np.repeat(ramp[:, None], 3, 1) if axis == 0 else np.repeat(ramp[None], 3, 0)
    found = apply_taps(image, axis, intensity_taps(output, ratio, 0, 40))
    line = found[:, 1] if axis == 0 else found[1]
    np.testing.assert_allclose(line, centres(output, ratio), atol=1e-5)


@pytest.mark.parametrize("ratio", COARSER)
def test_over_its_footprint_an_output_pixel_holds_the_mean(ratio: Fraction) -> None:
    rng = np.random.default_rng(0)
    native = rng.random(70).astype(np.float32)
    output = (2, int(70 * ratio))
    found = apply_taps(native[None], 1, intensity_taps(output, ratio, 0, 70))[0]
    # On a grid fine enough for both: each native pixel in p parts, q of which make an output pixel.
    parts = np.repeat(native.astype(float), ratio.numerator)
    whole = parts[: len(parts) // ratio.denominator * ratio.denominator]
    means = whole.reshape(-1, ratio.denominator).mean(1)
    np.testing.assert_allclose(found, means[output[0] : output[1]], atol=1e-6)


@pytest.mark.parametrize("ratio", FINER + COARSER)
def test_weights_sum_to_one_and_are_not_negative(ratio: Fraction) -> None:
    taps = intensity_taps((3, 21), ratio, 0, 200)
    np.testing.assert_allclose(taps.weight.sum(1), 1, atol=1e-6)
    assert taps.weight.min() >= 0


@pytest.mark.parametrize("ratio", FINER)
def test_beyond_the_edge_the_edge_is_repeated(ratio: Fraction) -> None:
    native = np.array([[5, 1, 1, 1, 9]], np.float32)
    output = (0, int(5 * ratio))
    found = apply_taps(native, 1, intensity_taps(output, ratio, 0, 5))[0]
    expected = np.interp(centres(output, ratio), np.arange(5), native[0])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[0] == 5


@pytest.mark.parametrize("ratio", [Fraction(3, 2), Fraction(2, 3), Fraction(4, 7), Fraction(1, 9)])
def test_a_part_of_the_input_gives_the_same_pixels_as_the_whole(ratio: Fraction) -> None:
    native = np.random.default_rng(1).random((1, 400)).astype(np.float32)
    output = (20, 40)
    whole = apply_taps(native, 1, intensity_taps(output, ratio, 0, 400))
    start, stop = needed_input(output, ratio, 0, 400)
    part = apply_taps(native[:, start:stop], 1, intensity_taps(output, ratio, start, stop))
    assert np.array_equal(whole, part)
    assert 0 <= start <= centres(output, ratio)[0]
    assert centres(output, ratio)[-1] <= stop - 1 < 400
    # No more is read than a footprint and two pixels on either side.
    span = centres(output, ratio)[-1] - centres(output, ratio)[0]
    assert stop - start <= span + 2 * max(1 / float(ratio), 1) + 5


@pytest.mark.parametrize(
    ("weights", "correlation", "factor"),
    [
        ([[1.0]], [1.0], 1.0),
        ([[0.5, 0.5]], [1.0], 2.0),
        ([[0.25, 0.75]], [1.0], 1 / (0.0625 + 0.5625)),
        ([[0.5, 0.5]], [1.0, 0.5], 1 / 0.75),
        ([[0.5, 0.5]], [1.0, 1.0], 1.0),
        ([[0.25, 0.5, 0.25]], [1.0, 0.0, 0.4], 1 / (0.375 + 2 * 0.0625 * 0.4)),
        # The variance is averaged over output pixels, not their looks.
        ([[1.0, 0.0], [0.5, 0.5]], [1.0], 1 / 0.75),
    ],
)
def test_looks_rise_by_the_variance_that_averaging_takes(
    weights: list[list[float]], correlation: list[float], factor: float
) -> None:
    taps = Taps(np.zeros_like(weights, dtype=np.intp), np.array(weights, np.float32))
    assert looks_factor(taps, np.array(correlation)) == pytest.approx(factor)


def test_the_halo_grows_as_the_roll_off_narrows() -> None:
    assert halo_px(Fraction(1), 0.1) == 0
    assert halo_px(Fraction(2), 0.1) == 55, "2.75 / (0.1 * 1/2)"
    assert halo_px(Fraction(1, 2), 0.1) == 110
    assert halo_px(Fraction(2), 0.5) == 11


def test_nothing_is_read_outside_the_scene() -> None:
    for ratio in (Fraction(1, 2), Fraction(3, 2)):
        start, stop = needed_input((0, 10), ratio, 30, 50)
        assert (start, stop >= 20, stop <= 50) == (0, True, True)
    assert needed_input((3, 9), Fraction(1), 0, 50) == (3, 9)


def test_the_finer_axis_says_how_far_a_scene_is_upsampled() -> None:
    for spacing, upsampling in (((0.7, 0.35), 2.0), ((0.35, 0.7), 2.0), ((0.175, 0.35), 1.0)):
        header = array_reader(np.zeros((40, 40), np.complex64), spacing).header
        assert scene_frame(header, 0.35).upsampling == upsampling
