"""The sensor's response against the analytic values of a Taylor-weighted band."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal.windows import taylor

from sarhpc.imaging.focusing import (
    add_points,
    circular_gaussian,
    impulse_response,
    resolution_px,
    taylor_weights,
    unit_noise_response,
)
from sarhpc.imaging.streams import stream

BAND, SIDELOBE = 0.8, 30.0
OVERSAMPLING = 64


def point_response() -> np.ndarray:
    """Power of a focused point along one axis, peak 1 at the middle, finely oversampled."""
    field = np.zeros((64, 256), dtype=np.complex64)
    field[32, 128] = 1
    spectrum = np.fft.fft(impulse_response(field, BAND, SIDELOBE)[32])
    fine = np.zeros(256 * OVERSAMPLING, dtype=complex)
    fine[:128], fine[-128:] = spectrum[:128], spectrum[128:]
    power = np.abs(np.fft.ifft(fine)) ** 2
    return np.roll(power / power.max(), 128 * OVERSAMPLING - int(power.argmax()))


def test_weights_are_those_of_the_taylor_window() -> None:
    samples = 1024
    frequency = ((np.arange(samples) + 0.5) / samples - 0.5) * BAND
    expected = taylor(samples, nbar=4, sll=30, norm=False)
    assert taylor_weights(frequency, BAND, SIDELOBE) == pytest.approx(expected, abs=1e-5)


def test_band_outside_the_processed_fraction_is_empty() -> None:
    frequency = np.array([-0.5, -0.41, 0.41, 0.49])
    assert not taylor_weights(frequency, BAND, SIDELOBE).any()


def test_response_has_the_analytic_width_and_sidelobes() -> None:
    power = point_response()
    middle = 128 * OVERSAMPLING
    half = np.interp(-0.5, -power[middle : middle + 2 * OVERSAMPLING], np.arange(2 * OVERSAMPLING))
    first_null = middle + int(np.argmax(np.diff(power[middle:]) > 0))
    assert 2 * half / OVERSAMPLING == pytest.approx(resolution_px(BAND, SIDELOBE), abs=0.01)
    # 1.27 (Taylor, nbar 4, -30 dB) times 0.886 / 0.8 (the band).
    assert resolution_px(BAND, SIDELOBE) == pytest.approx(1.41, abs=0.035)
    assert 10 * np.log10(power[first_null : 2 * middle].max()) == pytest.approx(-30.3, abs=0.3)


@pytest.mark.parametrize("count", [100, 513, 1024])
def test_response_leaves_the_power_of_noise_as_it_is(count: int) -> None:
    response = unit_noise_response(count, BAND, SIDELOBE)
    assert np.mean(response.astype(np.float64) ** 2) == pytest.approx(1.0, abs=1e-5)


def test_speckle_autocorrelation_is_the_squared_response_correlation() -> None:
    noise = circular_gaussian(stream(1, "test", "noise"), (1024, 1024))
    intensity = np.abs(impulse_response(noise, BAND, SIDELOBE)) ** 2
    fluctuation = intensity / intensity.mean() - 1
    weights = taylor_weights(np.fft.fftfreq(1024), BAND, SIDELOBE).astype(np.float64)
    coherence = np.fft.ifft(weights**2)
    theory = np.abs(coherence / coherence[0]) ** 2
    assert theory[1:3] == pytest.approx([0.4075, 0.0221], abs=5e-4)
    for axis in (0, 1):
        for lag in (1, 2, 3):
            measured = (fluctuation * np.roll(fluctuation, lag, axis=axis)).mean()
            assert measured / fluctuation.var() == pytest.approx(theory[lag], abs=0.01)


def test_integrated_power_of_a_point_is_its_radar_cross_section() -> None:
    field = np.zeros((128, 128), dtype=np.complex64)
    add_points(field, *(np.array([x]) for x in (64.2, 40.9, 250.0, 1.3)), pixel_area_m2=0.1225)
    assert np.argwhere(field).tolist() == [[64, 40]]
    focused = impulse_response(field, BAND, SIDELOBE)
    assert (np.abs(focused) ** 2).sum() * 0.1225 == pytest.approx(250.0, rel=1e-4)


def test_points_outside_the_grid_are_left_out() -> None:
    field = np.zeros((8, 8), dtype=np.complex64)
    add_points(field, *(np.array(x) for x in ([-1.0, 3.0], [3.0, 8.5], [1.0, 1.0], [0, 0])), 1.0)
    assert not field.any()
