"""E1, E2 and E4 on airborne X-band images; `pytest -s` prints what they read.

GOTCHA: amplitude and complex image of 0.2 m, HH. SpaceNet-6: complex images at 2.5 m, decimated
without a filter, so that their speckle is white.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from sarhpc.measures.amplitude_laws import fit_laws
from sarhpc.measures.log_cumulants import log_cumulants
from sarhpc.measures.looks import enl_mode, local_enl_histogram, log_cumulant_enl, moment_enl
from sarhpc.measures.speckle_correlation import lag_products, speckle_autocorrelation

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
CHANNELS = ("hh", "hv", "vh", "vv")
Open = Callable[[str], np.ndarray]


@pytest.fixture
def read(test_data: Path) -> Open:
    """First band of a file of the test data."""

    def open_(name: str) -> np.ndarray:
        with rasterio.open(test_data / name) as source:
            band: np.ndarray = source.read(1)
        return band.astype(np.complex128 if np.iscomplexobj(band) else np.float64)

    return open_


@pytest.fixture
def gotcha(read: Open) -> np.ndarray:
    """Amplitude codes (640, 640); they are truncated, as the complex image shows."""
    return read("gotcha_xband/derived_gotcha_az1-4_HH_amp_u16_0p2m.tif")


@pytest.fixture
def gotcha_complex(read: Open) -> np.ndarray:
    return read("gotcha_xband/derived_gotcha_az1-4_HH_slc_ground_0p2m.tif")


def of_system(image: np.ndarray) -> np.ndarray:
    """Autocorrelation (2, 5) of intensity speckle that the spectrum of a complex image implies."""
    r = np.fft.ifft2(np.abs(np.fft.fft2(image)) ** 2)
    return np.abs(np.array([r[1:6, 0], r[0, 1:6]]) / r[0, 0]) ** 2


def report(name: str, I: np.ndarray, valid: np.ndarray) -> np.ndarray:  # noqa: E741
    acf = speckle_autocorrelation(lag_products(I))
    cumulants = log_cumulants(I[valid])
    looks = (moment_enl(I), log_cumulant_enl(I[valid]), enl_mode(local_enl_histogram(I), acf))
    print("\n{}: E1 moment {:.3f} log-cumulant {:.3f} mode {:.3f}".format(name, *looks))
    print(f"   E2 k2 {cumulants.k2:.3f} k3 {cumulants.k3:.3f}")
    for fit in fit_laws(cumulants):
        print(f"      {fit.law:9} shape {fit.shape:.3f} k3 {fit.k3:.3f} chi2 {fit.chi2:.0f}")
    print(f"   E4 azimuth {acf[0].round(3)} range {acf[1].round(3)}")
    return acf


def test_codes_of_gotcha_are_truncated_amplitudes(
    gotcha: np.ndarray, gotcha_complex: np.ndarray
) -> None:
    """One scale takes |s| to within [code, code + 1); to [code - 1/2, code + 1/2) none does."""
    valid = (gotcha > 1000) & (gotcha < 65535)
    code, A = gotcha[valid], np.abs(gotcha_complex[valid])
    highest, lowest = (code / A).max(), ((code + 1) / A).min()
    assert highest == pytest.approx(lowest, rel=1e-6)
    assert ((code - 0.5) / A).max() > ((code + 0.5) / A).min() * (1 + 1e-4)


def test_log_cumulants_of_gotcha(gotcha: np.ndarray, gotcha_complex: np.ndarray) -> None:
    """Intensity of the whole scene, from the centre of each code; 0 is no data (1 pixel).

    From the lower end of the codes k3 is -0.556, as ln takes the few darkest pixels far down.
    """
    codes = log_cumulants((gotcha[gotcha > 0] + 0.5) ** 2)
    exact = log_cumulants(np.abs(gotcha_complex) ** 2)
    for found in (codes, exact):
        assert found.k2 == pytest.approx(2.71, abs=0.05)
        assert found.k3 == pytest.approx(-0.47, abs=0.05)
    assert codes.k3 == pytest.approx(exact.k3, abs=0.01)
    assert log_cumulants(gotcha[gotcha > 0] ** 2).k3 == pytest.approx(-0.556, abs=0.001)


def test_log_cumulants_of_gotcha_scatter_over_its_blocks(gotcha_complex: np.ndarray) -> None:
    """Bootstrap over 100 blocks of 64 px: what another scene of this kind may differ by."""
    I = np.abs(gotcha_complex) ** 2  # noqa: E741
    blocks = I.reshape(10, 64, 10, 64).swapaxes(1, 2).reshape(100, -1)
    rng = np.random.default_rng(0)
    draws = [log_cumulants(blocks[rng.integers(0, 100, 100)]) for _ in range(50)]
    k2, k3 = (np.std([getattr(draw, name) for draw in draws]) for name in ("k2", "k3"))
    print(f"\nGOTCHA, standard error over blocks: k2 {k2:.2f}, k3 {k3:.2f}")
    assert 0.05 < k2 < 0.15
    assert 0.15 < k3 < 0.35


def test_8_bits_hide_the_log_cumulants_of_gotcha(gotcha: np.ndarray) -> None:
    full = gotcha.mean() + 3 * gotcha.std()
    codes = np.maximum(np.round(255 * np.minimum(gotcha / full, 1)), 0.5)
    assert log_cumulants(codes**2).k3 == pytest.approx(-1.39, abs=0.01)


def test_speckle_of_gotcha_has_the_autocorrelation_of_its_spectrum(
    gotcha: np.ndarray, gotcha_complex: np.ndarray
) -> None:
    acf = report("GOTCHA", (gotcha + 0.5) ** 2, gotcha > 0)
    expected = of_system(gotcha_complex)
    print(f"   of its spectrum {expected.round(3).tolist()}")
    np.testing.assert_allclose(acf[:, 0], expected[:, 0], atol=0.06)


@pytest.mark.parametrize("channel", CHANNELS)
def test_decimated_speckle_of_spacenet_is_nearly_white(read: Open, channel: str) -> None:
    image = read(f"spacenet6_solaris/sar_{channel}.tif")
    acf = report(f"SpaceNet-6 {channel}", np.abs(image) ** 2, image != 0)
    np.testing.assert_allclose(of_system(image), 0, atol=0.02)
    np.testing.assert_allclose(acf, 0, atol=0.12)
