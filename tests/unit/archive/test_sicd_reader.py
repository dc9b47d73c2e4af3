from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from archive_files import scene_of

from hpc.errors import DataError
from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.formats.sicd.metadata import read_sicd_metadata
from sarhpc.archive.scene import Scene


def sicd(folder: Path, name: str) -> Scene:
    return Scene("x", {"sar": folder / "nitf_six" / name})


def test_the_acquisition_geometry_comes_from_the_file(test_data: Path) -> None:
    header = open_sar(sicd(test_data, "sicd_50x50.nitf")).header
    assert header.shape == (50, 50)
    assert header.is_complex
    assert header.range_direction == "+row"
    assert header.look_side == "right"
    assert header.geometry == "slant"
    assert header.incidence_deg == pytest.approx(38.0027, abs=1e-4)
    # 6.972 m in slant range is 11.32 m on the ground; azimuth stays.
    ground = 6.971918106 / np.sin(np.deg2rad(38.00273466))
    assert header.spacing_m == pytest.approx((ground, 2.52761044), rel=1e-8)


def test_the_frame_is_local_and_seen_from_above(test_data: Path) -> None:
    header = open_sar(sicd(test_data, "sicd_50x50.nitf")).header
    a, b, c, d, e, f = header.affine
    assert header.crs is None
    assert a * e - b * d < 0
    assert (c, f) == (0, 0)
    assert (abs(e), abs(a)) == header.spacing_m


def test_pixels_are_calibrated_by_the_files_polynomial(test_data: Path) -> None:
    path = test_data / "nitf_six" / "sicd_50x50.nitf"
    reader = open_sar(Scene("x", {"sar": path}))
    pixels, valid = reader.read((0, 50), (0, 50))
    with rasterio.open(path) as dataset:
        real, imaginary = dataset.read()
    assert reader.header.calibration == "sigma0"
    assert valid.all()
    power = np.abs(pixels) ** 2 / np.abs(real + 1j * imaginary) ** 2
    # Terms of the file by hand at the first pixel: the SCP is 9612 columns of 2.5276 m away.
    y = (1 - 9613) * 2.52761044295888482
    terms = (
        0.615677274456354784,
        1.56746878486508605e-06,
        -5.20849085269861398e-12,
        1.90641370616564614e-17,
    )
    assert power[0, 0] == pytest.approx(sum(t * y**n for n, t in enumerate(terms)), rel=1e-5)
    # Beta0 has factor one, so this is close to sin(incidence) = 0.6157 at the centre.
    assert power.mean() == pytest.approx(0.6157, rel=0.08)


def test_windows_equal_the_whole_sicd(test_data: Path) -> None:
    reader = open_sar(sicd(test_data, "sicd_50x50.nitf"))
    pixels, _ = reader.read((0, 50), (0, 50))
    part, valid = reader.read((7, 21), (30, 50))
    assert np.array_equal(part, pixels[7:21, 30:50])
    assert valid.shape == (14, 20)
    reader.close()


def test_integer_samples_without_radiometry_have_unknown_scale(test_data: Path) -> None:
    reader = open_sar(sicd(test_data, "cropped_sicd_110.nitf"))
    pixels, _ = reader.read((0, 5), (0, 5))
    with rasterio.open(test_data / "nitf_six" / "cropped_sicd_110.nitf") as dataset:
        real, imaginary = dataset.read()
    assert reader.header.calibration == "none"
    assert np.array_equal(pixels, (real + 1j * imaginary).astype(np.complex64))


def test_a_declaration_overrules_the_polynomial(test_data: Path) -> None:
    path = test_data / "nitf_six" / "sicd_50x50.nitf"
    plain = open_sar(scene_of(path, sarhpc__calibration="none"))
    scaled = open_sar(scene_of(path, sarhpc__scale=2.0))
    assert plain.header.calibration == "none"
    assert scaled.header.calibration == "sigma0"
    window = ((0, 5), (0, 5))
    assert np.allclose(scaled.read(*window)[0], 2 * plain.read(*window)[0])


def test_search_fields_come_from_the_file(test_data: Path) -> None:
    metadata = read_sicd_metadata(test_data / "nitf_six" / "sicd_50x50.nitf")
    assert metadata.band == "C"
    assert metadata.centre_ghz == pytest.approx(5.405, abs=0.01)
    assert metadata.polarization == "HH"
    assert metadata.start == "2019-10-28T22:43:39.923000Z"
    lon, lat = metadata.corners[0]
    assert (lon, lat) == pytest.approx((-73.59064, 45.29210), abs=1e-4)
    assert read_sicd_metadata(test_data / "nitf_six" / "cropped_sicd_110.nitf").band == "X"


@pytest.mark.parametrize("version", ["040", "041", "050", "101", "110", "120"])
def test_metadata_of_every_version_is_read(test_data: Path, version: str) -> None:
    metadata = read_sicd_metadata(test_data / "nitf_six" / f"cropped_sicd_{version}.nitf")
    assert (metadata.shape, metadata.band, metadata.polarization) == ((5, 5), "X", "HH")
    assert metadata.incidence_deg == pytest.approx(47.1757, abs=1e-3)
    assert metadata.axes is not None
    assert metadata.axes.angle_deg == pytest.approx(90, abs=0.2)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cropped_sicd_040.nitf", "not a SICD of version 1.0"),
        ("cropped_sicd_101.nitf", "urn:SICD:1.0.1, which is not supported"),
        ("sidd_1.0.0.nitf", "describes no plane"),
        ("i_3128b.ntf", "range direction .* is unknown"),
    ],
)
def test_other_nitf_files_are_refused_with_a_reason(
    test_data: Path, name: str, reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        open_sar(sicd(test_data, name))


def test_a_truncated_sicd_is_refused(test_data: Path, tmp_path: Path) -> None:
    whole = (test_data / "nitf_six" / "sicd_50x50.nitf").read_bytes()
    path = tmp_path / "short.nitf"
    for size in (0, 300, 9000, len(whole) - 30_000):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="short"):
            open_sar(Scene("x", {"sar": path})).read((0, 50), (0, 50))
