"""E7 against reflectors whose response follows from their weighting, and on a real reflector."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
import scipy.io
from scipy.signal.windows import taylor

from sarhpc.measures.point_response import AxisResponse, PointResponse, point_response
from sarhpc.measures.reflectors import isolated_reflectors

BINS = 1024
C = 299_792_458.0
SLC = "gotcha_xband/derived_gotcha_az1-4_HH_slc_ground_0p2m.tif"


def weighting(kind: str, band: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies, cycles per pixel, and the weights of a band."""
    width = round(band * BINS)
    weights = taylor(width, nbar=4, sll=30) if kind == "taylor" else np.ones(width)
    return (np.arange(width) - (width - 1) / 2) / BINS, weights / weights.sum()


def response(at: np.ndarray, kind: str, band: float) -> np.ndarray:
    frequency, weights = weighting(kind, band)
    return np.exp(2j * np.pi * np.outer(at, frequency)) @ weights


def reflector(
    position: tuple[float, float], size: int = 64, kind: str = "taylor", band: float = 0.8
) -> np.ndarray:
    """A reflector at a position, px; its band lies off zero frequency along columns."""
    lines = [response(np.arange(size) - at, kind, band) for at in position]
    return np.outer(*lines) * np.exp(2j * np.pi * 0.31 * np.arange(size))


@functools.cache
def expected(kind: str, band: float) -> tuple[float, float, float]:
    """IRW in px, PSLR and ISLR in dB, from the weights by a fine Fourier sum."""
    step = 1 / 64
    power = np.abs(response(np.arange(0, 24, step), kind, band)) ** 2
    half = int(np.argmax(power < 0.5))
    irw = 2 * step * (half - (0.5 - power[half]) / (power[half - 1] - power[half]))
    null = half + int(np.argmax(np.diff(power[half:]) > 0))
    lobes = power[null : round(10 * irw / step)]
    main = power[:null].sum() - 0.5
    return irw, 10 * math.log10(lobes.max()), 10 * math.log10(lobes.sum() / main)


def assert_within(found: AxisResponse, kind: str, band: float) -> None:
    irw, pslr, islr = expected(kind, band)
    assert found.irw_px == pytest.approx(irw, rel=0.01)
    assert found.pslr_db == pytest.approx(pslr, abs=0.3)
    assert found.islr_db == pytest.approx(islr, abs=0.5)


def test_the_expected_values_are_the_textbook_ones() -> None:
    assert expected("uniform", 0.8)[:2] == pytest.approx((0.8859 / 0.8, -13.26), abs=0.005)
    assert expected("taylor", 0.8)[1] == pytest.approx(-30, abs=0.5)


@pytest.mark.parametrize(("kind", "band"), [("taylor", 0.8), ("uniform", 0.8), ("taylor", 0.5)])
def test_a_complex_reflector_anywhere_in_a_pixel_reads_as_its_weighting(
    kind: str, band: float
) -> None:
    rng = np.random.default_rng(7)
    for offset in rng.uniform(-0.5, 0.5, (10, 2)):
        chip = reflector((32 + offset[0], 32 + offset[1]), kind=kind, band=band)
        found = point_response([5e4 * np.exp(1j) * chip], spacing_m=(0.5, 0.35))
        assert_within(found.range, kind, band)
        assert_within(found.azimuth, kind, band)
        assert found.range.irw_m == pytest.approx(0.35 * found.range.irw_px)
        assert found.azimuth.irw_m == pytest.approx(0.5 * found.azimuth.irw_px)


def test_bands_of_the_two_axes_are_told_apart() -> None:
    range_line = response(np.arange(64) - 32.3, "uniform", 0.8)
    azimuth_line = response(np.arange(64) - 31.9, "taylor", 0.5)
    found = point_response([np.outer(azimuth_line, range_line)], (1.0, 1.0))
    assert_within(found.range, "uniform", 0.8)
    assert_within(found.azimuth, "taylor", 0.5)


def speckle(rng: np.random.Generator, size: int) -> np.ndarray:
    """Single-look clutter of unit power through the Taylor weighting of 0.8 of the band."""
    frequency, weights = weighting("taylor", 0.8)
    line = np.interp(np.fft.fftfreq(size), frequency, weights, left=0, right=0)
    H = np.outer(line, line)
    noise = rng.standard_normal((size, size)) + 1j * rng.standard_normal((size, size))
    field = np.fft.ifft2(np.fft.fft2(noise) * H)
    return field / np.sqrt((np.abs(field) ** 2).mean())


def field_of_reflectors(seed: int, each_way: int) -> np.ndarray:
    """Reflectors of random phase and position 64 px apart, clutter 40 dB below their peaks."""
    rng = np.random.default_rng(seed)
    size = 64 * each_way + 64
    image = 0.01 * speckle(rng, size)
    for row in range(each_way):
        for col in range(each_way):
            place = np.s_[64 * row : 64 * row + 128, 64 * col : 64 * col + 128]
            r, c = 64 + rng.uniform(-0.5, 0.5, 2)
            lines = [response(np.arange(128) - at, "taylor", 0.8) for at in (r, c)]
            image[place] += np.exp(2j * np.pi * rng.uniform()) * np.outer(*lines)
    return image


@pytest.mark.slow
def test_the_mean_of_many_reflectors_reads_as_its_weighting_in_clutter_of_minus_40_db() -> None:
    # What is left of the clutter is -64 dB: 0.14 dB of a sidelobe of -30 dB (one sigma).
    image = field_of_reflectors(seed=3, each_way=16)
    found = isolated_reflectors(image, 64)
    assert len(found) == 16 * 16
    measured = point_response([each.chip(image, 64) for each in found], (0.35, 0.35))
    print(f"\n256 reflectors in clutter, expected {expected('taylor', 0.8)}: {measured}")
    assert measured.reflectors == 256
    assert measured.clutter_db == pytest.approx(-40 - 10 * math.log10(256), abs=0.5)
    assert_within(measured.range, "taylor", 0.8)
    assert_within(measured.azimuth, "taylor", 0.8)


def test_one_reflector_in_clutter_gives_its_width_and_no_sidelobe_that_clutter_may_be() -> None:
    rng = np.random.default_rng(4)
    irw, *_ = expected("taylor", 0.8)
    widths, sidelobes = [], []
    for _ in range(20):
        clutter = speckle(rng, 64) * np.exp(2j * np.pi * 0.31 * np.arange(64))
        found = point_response([reflector((32.2, 31.7)) + 0.03 * clutter], (1.0, 1.0))
        widths += [found.range.irw_px, found.azimuth.irw_px]
        sidelobes += [found.range.pslr_db, found.azimuth.pslr_db]
    # Clutter of 0.03 moves a half-power point by 0.03 / sqrt(2) over a slope of 0.5 / IRW: 4 %.
    assert np.mean(widths) == pytest.approx(irw, rel=0.03)
    assert np.std(widths) < 0.08 * irw
    assert sidelobes.count(None) >= 36


def test_intensity_is_interpolated_where_its_band_fits_the_sampling() -> None:
    rng = np.random.default_rng(5)
    for offset in rng.uniform(-0.5, 0.5, (5, 2)):
        chip = np.abs(reflector((48 + offset[0], 48 + offset[1]), 96, "taylor", 0.4))
        found = point_response([60_000 * chip], (1.0, 1.0))
        assert_within(found.range, "taylor", 0.4)
        assert_within(found.azimuth, "taylor", 0.4)


def test_detected_chips_whose_intensity_is_cut_off_by_the_sampling_are_refused() -> None:
    with pytest.raises(ValueError, match=r"along range .* complex image"):
        point_response([np.abs(reflector((32.2, 31.7)))], (1.0, 1.0))


def test_8_bit_codes_are_refused_also_as_floats() -> None:
    codes = np.round(255 * np.abs(reflector((48.2, 47.7), 96, "taylor", 0.4)))
    for chip in (codes.astype(np.uint8), codes / 255):
        with pytest.raises(ValueError, match="8-bit codes"):
            point_response([chip], (1.0, 1.0))
    with pytest.raises(ValueError, match="8-bit codes"):
        isolated_reflectors(codes.astype(np.uint8), 64)


def bad(kind: str) -> np.ndarray:
    chip = reflector((32.2, 31.7))
    if kind == "nan":
        chip[3, 4] = np.nan
    elif kind == "small":
        chip = chip[20:44, 20:44]
    elif kind == "edge":
        chip = np.roll(chip, 20, axis=1)
    elif kind == "flat":
        chip = np.ones((64, 64), complex)
    elif kind == "speckle":
        chip = speckle(np.random.default_rng(0), 64)
        row, col = np.unravel_index(np.argmax(np.abs(chip)), chip.shape)
        chip = np.roll(chip, (32 - row, 32 - col), (0, 1))
    elif kind == "clipped":
        chip = np.minimum(np.abs(reflector((48.2, 47.7), 96, "taylor", 0.4)), 0.8)
    return chip


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan", "not finite"),
        ("small", "32 px or more"),
        ("edge", "not in the middle"),
        ("flat", "not in the middle"),
        ("speckle", "20 dB over the clutter"),
        ("clipped", "peak is clipped"),
    ],
)
def test_a_chip_that_shows_no_response_is_refused(kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        point_response([bad(kind)], (1.0, 1.0))


def test_a_main_lobe_too_wide_for_the_chip_says_the_size_that_holds_it() -> None:
    with pytest.raises(ValueError, match="chips of 78 px or more"):
        point_response([reflector((32.1, 32.2), 64, "taylor", 0.4)], (1.0, 1.0))
    assert point_response([reflector((39.1, 39.2), 78, "taylor", 0.4)], (1.0, 1.0)).reflectors == 1


@pytest.mark.parametrize("distance", [2.9, 5.0, 20.0])
def test_a_reflector_with_a_neighbour_is_not_isolated(distance: float) -> None:
    alone = 0.001 * speckle(np.random.default_rng(0), 200)
    alone[50:150, 50:150] += reflector((50.2, 50.4), 100)
    assert [(each.row, each.col) for each in isolated_reflectors(alone)] == [(100, 100)]
    both = alone.copy()
    both[50:150, 50:150] += 0.7 * reflector((50.2, 50.4 + distance), 100)
    assert isolated_reflectors(both) == []


def test_speckle_holds_no_reflectors() -> None:
    assert isolated_reflectors(speckle(np.random.default_rng(1), 512), over_clutter_db=20) == []


def gotcha_response(slc: np.ndarray, chip_px: int = 80) -> list[PointResponse]:
    found = isolated_reflectors(slc, chip_px, over_clutter_db=35)
    return [point_response([each.chip(slc, chip_px)], (0.2, 0.2)) for each in found]


def test_gotchas_reflectors_are_as_wide_as_the_processed_band_and_its_hann_weighting_make_them(
    test_data: Path,
) -> None:
    pulses = [
        scipy.io.loadmat(test_data / f"gotcha_xband/data_3dsar_pass1_az00{k}_HH.mat")["data"][0, 0]
        for k in (1, 4)
    ]
    frequency = pulses[0]["freq"].ravel()
    x, y, z = (np.concatenate([pulse[axis].ravel() for pulse in pulses]) for axis in "xyz")
    ground = np.cos(np.arctan2(z, np.hypot(x, y)).mean())
    span = np.ptp(np.unwrap(np.arctan2(y, x)))
    # Wavenumbers on the ground, cycles per metre, of the band and of the aperture.
    range_band = 2 * np.ptp(frequency) * ground / C
    azimuth_band = 4 * frequency.mean() * np.sin(span / 2) * ground / C
    with rasterio.open(test_data / SLC) as dataset:
        found = gotcha_response(dataset.read(1))
    assert len(found) == 2
    hann = 1.4406
    print(f"\nband: {hann / range_band:.3f} m of range, {hann / azimuth_band:.3f} m of azimuth")
    for each in found:
        print(each)
        # The ground holds no point to better than a few percent; Hamming is 10 % narrower.
        assert each.range.irw_m == pytest.approx(hann / range_band, rel=0.02)
        assert each.azimuth.irw_m == pytest.approx(hann / azimuth_band, rel=0.02)
        assert each.range.irw_px > each.azimuth.irw_px * 1.05
    assert found[0].range.pslr_db == pytest.approx(-31.5, abs=3)
    assert found[0].azimuth.islr_db is not None


def test_gotchas_amplitude_of_16_bits_clips_its_reflectors(test_data: Path) -> None:
    name = "gotcha_xband/derived_gotcha_az1-4_HH_amp_u16_0p2m.tif"
    with rasterio.open(test_data / name) as dataset:
        amplitude = dataset.read(1)
    with rasterio.open(test_data / SLC) as dataset:
        strongest, *_ = isolated_reflectors(dataset.read(1), 80)
    with pytest.raises(ValueError, match="clipped"):
        point_response([strongest.chip(amplitude, 80)], (0.2, 0.2))
