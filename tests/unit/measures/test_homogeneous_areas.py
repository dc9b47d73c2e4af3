"""Homogeneous areas: speckle alone passes; edges, gradients, texture and targets do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from sarhpc.measures.homogeneous_areas import homogeneous_areas
from sarhpc.measures.speckle_correlation import lag_products, speckle_autocorrelation

SIDE = 512
SQUARES = (SIDE // 32) ** 2
ROW, COLUMN = np.mgrid[:SIDE, :SIDE]


def speckle(band: float = 0.8, looks: int = 1, seed: int = 0) -> np.ndarray:
    """Intensity (512, 512) of uniform ground, mean 1, of a rectangular band."""
    rng = np.random.default_rng(seed)
    kept = np.abs(np.fft.fftfreq(SIDE)) < band / 2
    image = np.zeros((SIDE, SIDE))
    for _ in range(looks):
        noise = rng.normal(size=(2, SIDE, SIDE))
        spectrum = np.fft.fft2(noise[0] + 1j * noise[1]) * kept[:, None] * kept
        image += np.abs(np.fft.ifft2(spectrum)) ** 2
    return image / image.mean()


def share(image: np.ndarray, looks: float = 1.0) -> float:
    correlation = speckle_autocorrelation(lag_products(image), looks)
    return len(homogeneous_areas(image, looks, correlation)) / SQUARES


@pytest.mark.parametrize(("band", "looks"), [(0.5, 1), (0.8, 1), (1.0, 1), (0.8, 4)])
def test_speckle_alone_is_homogeneous_whatever_its_band_and_looks(band: float, looks: int) -> None:
    assert share(speckle(band, looks), looks) > 0.97


def test_an_edge_of_3_db_and_a_bright_point_are_never_inside() -> None:
    image = speckle()
    assert share(image * np.where(COLUMN // 16 % 2, 2.0, 1.0)) < 0.03
    assert share(image * 10 ** (0.6 * (ROW % 32) / 32)) < 0.03, "a gradient of 6 dB"
    image[10::32, 10::32] = 30.0
    assert share(image) == 0


def test_texture_of_k_law_is_not_homogeneous() -> None:
    texture = np.random.default_rng(1).gamma(2.0, 0.5, (SIDE, SIDE))
    assert share(speckle() * texture) == 0


def test_looks_other_than_the_nominal_ones_are_not_homogeneous() -> None:
    assert share(speckle(looks=4), 1.0) == 0
    assert share(speckle(looks=1), 4.0) == 0


def test_place_looks_and_level_of_an_area_are_told() -> None:
    image = 1e-2 * speckle(1.0)
    image[:, :32] = 0.0
    image[32:] *= 5 ** (ROW[32:] % 2)
    [first, *_] = found = homogeneous_areas(image, 1.0, np.zeros((2, 5)))
    assert (first.row, first.column, first.side_px) == (0, 32, 32)
    assert {area.row for area in found} == {0}
    assert first.enl == pytest.approx(1.0, abs=0.2)
    assert first.level_db == pytest.approx(-20.0, abs=0.5)


@pytest.mark.parametrize("side", [12, 30, 1024])
def test_a_side_that_does_not_fit_is_refused(side: int) -> None:
    with pytest.raises(ValueError, match=r"multiple of 4|or more is needed"):
        homogeneous_areas(speckle(), 1.0, np.zeros((2, 5)), side)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_fields_of_an_airborne_image_are_found_and_its_vehicles_are_not(test_data: Path) -> None:
    """GOTCHA, X-band HH: grass and asphalt around rows of parked cars."""
    name = "gotcha_xband/derived_gotcha_az1-4_HH_slc_ground_0p2m.tif"
    with rasterio.open(test_data / name) as source:
        image = np.abs(source.read(1).astype(np.complex128)) ** 2
    correlation = speckle_autocorrelation(lag_products(image))
    found = homogeneous_areas(image, 1.0, correlation)
    bright = image > np.percentile(image, 99.5)
    inside = [bright[area.row : area.row + 32, area.column : area.column + 32] for area in found]
    grass = [area for area in found if area.row < 192]
    assert len(grass) > 0.6 * 6 * 20
    assert max(part.mean() for part in inside) < 0.02
    assert 0.9 < np.median([area.enl for area in found]) < 1.1
