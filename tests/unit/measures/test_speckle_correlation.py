"""E4: the autocorrelation of speckle against that of its band."""

from __future__ import annotations

import numpy as np
import pytest
from speckle_fields import speckle, theory

from sarhpc.measures.speckle_correlation import (
    LAGS,
    autocorrelation_of_band,
    lag_products,
    speckle_autocorrelation,
)


def measured(seed: int, tiles: int = 1, looks: int = 1, **field: object) -> np.ndarray:
    rng = np.random.default_rng(seed)
    products = [lag_products(speckle(rng, looks=looks, **field)) for _ in range(tiles)]  # type: ignore[arg-type]
    return speckle_autocorrelation(np.mean(products, 0), looks)


@pytest.mark.parametrize("looks", [1, 4])
def test_taylor_speckle_has_the_autocorrelation_of_its_band(looks: int) -> None:
    """One tile of 512 px scatters by 0.003 at lag 1 (40 draws), the mean of 6 by 0.0012."""
    acf = measured(1, 6, looks)
    assert acf[:, 0] == pytest.approx(0.410, abs=0.005)
    np.testing.assert_allclose(acf, theory(), atol=0.006)


@pytest.mark.parametrize("bands", [(0.8, 0.5), (0.5, 0.8)])
def test_the_axes_are_told_apart(bands: tuple[float, float]) -> None:
    """Lag 1 is 0.41 at a band of 0.8 and 0.71 at 0.5; one tile scatters by 0.003."""
    acf = measured(2, 1, 1, bands=bands)
    np.testing.assert_allclose(acf[:, 0], theory(bands)[:, 0], atol=0.015)
    assert abs(acf[0, 0] - acf[1, 0]) > 0.25


def test_swapping_the_axes_of_the_products_swaps_those_of_the_autocorrelation() -> None:
    products = lag_products(speckle(np.random.default_rng(8), bands=(0.8, 0.5)))
    swapped = speckle_autocorrelation(products[::-1])
    np.testing.assert_allclose(swapped, speckle_autocorrelation(products)[::-1], rtol=1e-12)


def test_white_speckle_has_none() -> None:
    """Standard error of a lag over 512 x 512 independent pixels: 1/512, 5 of them here."""
    I = np.random.default_rng(3).exponential(size=(512, 512))  # noqa: E741
    assert np.abs(speckle_autocorrelation(lag_products(I))).max() < 5 / 512


def test_the_level_of_the_scene_does_not_enter() -> None:
    """A ramp of 20 dB over 512 px, 0.6 dB a block."""
    rng = np.random.default_rng(4)
    I = speckle(rng)  # noqa: E741
    ramp = I * 10 ** np.linspace(0, 2, 512)[:, None]
    flat, tilted = (speckle_autocorrelation(lag_products(image)) for image in (I, ramp))
    np.testing.assert_allclose(tilted, flat, atol=0.01)


def test_products_are_means_over_pairs_of_each_block() -> None:
    I = np.random.default_rng(5).exponential(size=(35, 40))  # noqa: E741
    corners = [(0, 0), (0, 16), (16, 0), (16, 16), (8, 8), (8, 24)]
    blocks = [I[y : y + 16, x : x + 16] for y, x in corners]
    blocks = [block / block.mean() for block in blocks]
    products = lag_products(I)
    for lag in range(LAGS + 1):
        down = np.mean([(b[lag:] * b[: 16 - lag]).mean() for b in blocks])
        across = np.mean([(b[:, lag:] * b[:, : 16 - lag]).mean() for b in blocks])
        assert products[:, 1 + lag] == pytest.approx([down, across])
    total = count = 0.0
    for dy in range(-9, 10):
        for dx in range(-9, 10):
            if max(abs(dy), abs(dx)) >= 6:
                here = np.s_[max(dy, 0) : 16 + min(dy, 0), max(dx, 0) : 16 + min(dx, 0)]
                there = np.s_[max(-dy, 0) : 16 + min(-dy, 0), max(-dx, 0) : 16 + min(-dx, 0)]
                total += np.mean([(b[here] * b[there]).sum() for b in blocks])
                count += blocks[0][here].size
    assert products[:, 0] == pytest.approx(total / count)


def test_autocorrelation_of_a_full_unweighted_band_is_that_of_white_noise() -> None:
    assert autocorrelation_of_band(np.ones(64)) == pytest.approx(np.zeros(5), abs=1e-12)
    half = np.where(np.abs(np.fft.fftfreq(4096)) < 0.25, 1.0, 0.0)
    lag = np.arange(1, 6)
    assert autocorrelation_of_band(half) == pytest.approx(np.sinc(lag / 2) ** 2, abs=1e-3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((64, 64), np.nan), "NaN"),
        (np.full((64, 64), 2.0), "constant"),
        (np.random.default_rng(0).exponential(size=(64, 31)), "an image of 32 x 32 px"),
        (np.kron(np.eye(4), np.ones((16, 16))), "blocks of 16 px are 0 everywhere"),
    ],
)
def test_what_is_no_speckle_gets_no_number(image: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lag_products(image)


def test_products_without_contrast_and_no_looks_are_refused() -> None:
    with pytest.raises(ValueError, match="must exceed those far apart"):
        speckle_autocorrelation(np.ones((2, 7)))
    with pytest.raises(ValueError, match="looks is 0"):
        speckle_autocorrelation(lag_products(speckle(np.random.default_rng(0), 64)), 0)
