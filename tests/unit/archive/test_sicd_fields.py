"""Each field of a SICD by itself: a file in which no two numbers are the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sicd_files import CORNERS, PIXELS, write_sicd

from hpc.errors import DataError
from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.formats.sicd.metadata import band_of, read_sicd_metadata
from sarhpc.archive.scene import Scene


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "image.nitf"


def test_rows_come_before_columns_in_every_pair(path: Path) -> None:
    found = read_sicd_metadata(write_sicd(path))
    assert found.shape == (3, 4)
    assert found.slant_spacing_m == (2.0, 3.0)
    assert found.first_pixel == (5, 60)
    assert found.scp_pixel == (7, 63)


def test_texts_are_those_of_their_fields(path: Path) -> None:
    found = read_sicd_metadata(write_sicd(path))
    assert (found.collector, found.mode) == ("RCM-1", "16M11")
    assert found.start == "2019-10-28T22:43:39.923000Z"
    assert found.incidence_deg == 30.0
    assert read_sicd_metadata(write_sicd(path, mode_id=None)).mode == "STRIPMAP"


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_corners_are_in_the_order_of_their_index(path: Path, order: tuple[int, ...]) -> None:
    names = tuple(CORNERS)
    found = read_sicd_metadata(write_sicd(path, corners=tuple(names[place] for place in order)))
    assert found.corners == tuple(CORNERS.values())


@pytest.mark.parametrize(
    ("plane", "spacing", "geometry"),
    [
        ("SLANT", (4.0, 3.0), "slant"),
        ("GROUND", (2.0, 3.0), "ground"),
        ("OTHER", (4.0, 3.0), "slant"),
    ],
)
def test_only_a_slant_spacing_is_laid_on_the_ground(
    path: Path, plane: str, spacing: tuple[float, float], geometry: str
) -> None:
    # sin(30 degrees) is one half, along rows alone.
    write_sicd(path, plane=plane)
    assert read_sicd_metadata(path).spacing_m == pytest.approx(spacing)
    header = open_sar(Scene("x", {"sar": path})).header
    assert header.spacing_m == pytest.approx(spacing)
    assert header.geometry == geometry
    assert header.affine == pytest.approx((spacing[1], 0, 0, 0, -spacing[0], 0))


@pytest.mark.parametrize(
    ("frequency", "ghz", "band"),
    [
        ((9.0e9, 10.0e9), 9.5, "X"),
        ((1.0e9, 1.5e9), 1.25, "L"),
        ((None, 10.0e9), None, None),
        ((9.0e9, None), None, None),
        ((None, None), None, None),
        ((0.3e9, 0.5e9), 0.4, None),
    ],
)
def test_the_centre_frequency_is_the_middle_of_both_limits(
    path: Path, frequency: tuple[float | None, float | None], ghz: float | None, band: str | None
) -> None:
    found = read_sicd_metadata(write_sicd(path, frequency=frequency))
    assert found.centre_ghz == (None if ghz is None else pytest.approx(ghz))
    assert found.band == band


@pytest.mark.parametrize(
    ("ghz", "band"),
    [(0.99, None), (1, "L"), (1.99, "L"), (2, "S"), (3.99, "S"), (4, "C"), (7.99, "C"), (8, "X"),
     (11.99, "X"), (12, "Ku"), (17.99, "Ku"), (18, "K"), (26.99, "K"), (27, None), (35, None)],
)  # fmt: skip
def test_bands_begin_at_their_lower_limit(ghz: float, band: str | None) -> None:
    # IEEE Std 521: L 1-2, S 2-4, C 4-8, X 8-12, Ku 12-18, K 18-27 GHz.
    assert band_of(ghz) == band


@pytest.mark.parametrize(
    ("told", "found"), [("H:V", "HV"), ("V:H", "VH"), ("V:V", "VV"), ("RHC:H", None), (None, None)]
)
def test_polarizations_are_transmit_then_receive(
    path: Path, told: str | None, found: str | None
) -> None:
    assert read_sicd_metadata(write_sicd(path, polarization=told)).polarization == found


@pytest.mark.parametrize(("side", "looks"), [("L", "left"), ("R", "right")])
def test_the_side_of_the_track_is_the_look_side(path: Path, side: str, looks: str) -> None:
    assert read_sicd_metadata(write_sicd(path, side=side)).look_side == looks


POLYNOMIAL = (
    '<Radiometric><SigmaZeroSFPoly order1="1" order2="2">'
    '<Coef exponent1="0" exponent2="2">0.5</Coef><Coef exponent1="1" exponent2="0">0.25</Coef>'
    '<Coef exponent1="0" exponent2="0">9.0</Coef></SigmaZeroSFPoly></Radiometric>'
)


def test_the_calibration_is_a_polynomial_of_metres_from_the_scene_centre(path: Path) -> None:
    write_sicd(path, sigma_zero=POLYNOMIAL)
    assert read_sicd_metadata(path).sigma_zero is not None
    assert np.array_equal(read_sicd_metadata(path).sigma_zero, [[9, 0, 0.5], [0.25, 0, 0]])
    pixels, _ = open_sar(Scene("x", {"sar": path})).read((0, 3), (0, 4))
    # Pixel (0, 0) is row 5 and column 60 of the full image, whose centre is (7, 63).
    x = (np.arange(3) + 5 - 7)[:, None] * 2.0
    y = (np.arange(4) + 60 - 63) * 3.0
    np.testing.assert_allclose(
        np.abs(pixels) ** 2, np.abs(PIXELS) ** 2 * (9 + 0.25 * x + 0.5 * y**2), rtol=1e-5
    )


def test_a_coefficient_without_exponents_is_the_constant_one(path: Path) -> None:
    constant = '<Coef exponent1="0" exponent2="0">'
    assert constant in POLYNOMIAL
    write_sicd(path, sigma_zero=POLYNOMIAL.replace(constant, "<Coef>"))
    assert np.array_equal(read_sicd_metadata(path).sigma_zero, [[9, 0, 0.5], [0.25, 0, 0]])


def test_without_a_polynomial_pixels_are_as_stored(path: Path) -> None:
    reader = open_sar(Scene("x", {"sar": write_sicd(path)}))
    assert reader.header.calibration == "none"
    assert reader.header.look_side == "left"
    assert np.array_equal(reader.read((1, 3), (0, 4))[0], PIXELS[1:])


def test_a_file_with_a_word_for_a_number_is_refused(path: Path) -> None:
    write_sicd(path)
    path.write_bytes(path.read_bytes().replace(b"<SS>2.0</SS>", b"<SS>two</SS>"))
    with pytest.raises(DataError, match="restore the file"):
        read_sicd_metadata(path)


def test_a_file_that_is_no_sicd_is_told_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text("no header of a NITF\n" * 50)  # jbpy logs each field of it
    with pytest.raises(DataError, match=r"image\.nitf is not a SICD of version 1\.0 or later"):
        read_sicd_metadata(path)
    assert not caplog.records
