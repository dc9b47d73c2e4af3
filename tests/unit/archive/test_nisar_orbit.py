"""Times, valid samples, spacing and incidence of NISAR and UAVSAR swaths of other writers."""

from __future__ import annotations

import logging
import shutil

import h5py
import numpy as np
import pytest
from pyproj import Geod, Transformer
from unit.archive.nisar_files import SLANT_0, SLANT_STEP, TIME_0, TIME_STEP, speckle, write_swath

from sarhpc.archive.catalog_builder import catalog_directory
from sarhpc.archive.formats.nisar.hdf5 import seconds_between
from sarhpc.archive.formats.nisar.metadata import read_nisar
from sarhpc.archive.formats.nisar.reader import NisarReader
from sarhpc.archive.scene import Scene

EPOCH = "seconds since 2025-11-09T00:00:00"


def test_two_notations_of_one_epoch_are_the_same_file(test_cases, tmp_path):
    for name in ("rslc_same.h5", "rslc_ns.h5"):
        shutil.copy(test_cases / "nisar_epoch" / name, tmp_path / name)
    same, with_fraction = (read_nisar(tmp_path / n) for n in ("rslc_same.h5", "rslc_ns.h5"))
    assert with_fraction.affine == same.affine
    assert with_fraction.incidence_deg == same.incidence_deg
    report = catalog_directory(tmp_path, tmp_path / "out")
    assert report.scenes == ("rslc_ns", "rslc_same")


@pytest.mark.parametrize(("later", "earlier", "seconds"), [
    (EPOCH, "Seconds since 2025-11-09 00:00:00.000000000", 0),
    (EPOCH, "seconds since 2025-11-09", 0),
    (EPOCH, "seconds since 2025-11-08T23:59:58.5Z", -1.5),
    ("s", "s", 0),
])  # fmt: skip
def test_epochs_are_compared_as_times(later, earlier, seconds):
    assert seconds_between(later, earlier) == pytest.approx(seconds, abs=1e-9)


def test_a_grid_of_another_epoch_is_shifted(tmp_path):
    path = write_swath(tmp_path / "a.h5", {"HH": speckle((64, 96))})
    before = read_nisar(path)
    with h5py.File(path, "a") as file:
        times = file["science/LSAR/RSLC/metadata/geolocationGrid/zeroDopplerTime"]
        times[...] = times[...] + 3600.0
        times.attrs["units"] = np.bytes_("seconds since 2025-11-08T23:00:00.0")
    assert read_nisar(path).affine == pytest.approx(before.affine, rel=1e-6)


def test_a_subswath_that_marks_nothing_is_named_and_the_pixels_are_taken(
    test_cases, tmp_path, caplog
):
    path = shutil.copy(test_cases / "nisar_valid_samples" / "rslc_empty_subswath.h5", tmp_path)
    with caplog.at_level(logging.WARNING):
        reader = NisarReader(Scene("a", {"sar": tmp_path / "rslc_empty_subswath.h5"}))
        _, valid = reader.read((0, 64), (0, 64))
        reader.close()
    assert path
    assert valid.mean() > 0.99
    assert "validSamplesSubSwath1" in caplog.text


def airborne(path, height=12_500.0, terrain=250.0):
    """A swath without positions, flown level at `height` to the north; with its orbit."""
    write_swath(path, {"HH": speckle((64, 96))}, grid=False, spacing=(1.0, 7.7), terrain=terrain)
    to_earth = Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    times = TIME_0 + np.linspace(-5, 5, 11)
    latitude = 35 + 0.002 * (times - TIME_0)
    position = np.stack(to_earth.transform(np.full(11, -118.0), latitude, np.full(11, height)), 1)
    velocity = np.gradient(position, times, axis=0)
    with h5py.File(path, "a") as file:
        near = np.hypot(height - terrain, 9_000.0)
        ranges = near + 40.0 * np.arange(96)
        file["science/LSAR/RSLC/swaths/frequencyA/slantRange"][...] = ranges
        orbit = file.create_group("science/LSAR/RSLC/metadata/orbit")
        orbit["time"], orbit["position"], orbit["velocity"] = times, position, velocity
        orbit["time"].attrs["units"] = np.bytes_(EPOCH)
    return path, ranges, np.linalg.norm(velocity[5])


def true_incidence(slant, height, terrain):
    """By search along the ground with geodesics, in degrees."""
    geod, to_earth = (
        Geod(ellps="WGS84"),
        Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True),
    )
    platform = np.array(to_earth.transform(-118.0, 35.0, height))
    low, high = 100.0, 60_000.0
    for _ in range(60):
        distance = (low + high) / 2
        lon, lat, _ = geod.fwd(-118.0, 35.0, 90.0, distance)
        target = np.array(to_earth.transform(lon, lat, terrain))
        low, high = (
            (distance, high) if np.linalg.norm(platform - target) < slant else (low, distance)
        )
    up = np.array(to_earth.transform(lon, lat, terrain + 1)) - target
    ray = (platform - target) / np.linalg.norm(platform - target)
    return np.degrees(np.arccos(ray @ up / np.linalg.norm(up)))


def test_incidence_and_ground_spacing_follow_from_the_orbit(tmp_path, caplog):
    path, ranges, speed = airborne(tmp_path / "uavsar.h5")
    metadata = read_nisar(path)
    for col in (0, 47, 95):
        wanted = true_incidence(ranges[col], 12_500.0, 250.0)
        assert metadata.at(32, col + 0.5)["incidence_deg"] == pytest.approx(wanted, abs=0.02)
    middle = np.radians(true_incidence(ranges[48], 12_500.0, 250.0))
    along, across = metadata.spacing_m
    assert across == pytest.approx(40 / np.sin(middle), rel=1e-3)
    assert along == pytest.approx(speed * TIME_STEP, rel=5e-3)
    assert metadata.stated_spacing_m == (1.0, 7.7)
    with caplog.at_level(logging.WARNING):
        catalog_directory(tmp_path, tmp_path / "out")
    assert "states a ground spacing of 1.00 x 7.70 m" in caplog.text
    # With the incidence the image is calibrated: beta0 is known from the file.
    assert NisarReader(Scene("a", {"sar": path})).header.calibration == "sigma0"


def test_without_an_orbit_the_stated_spacing_stands(tmp_path):
    path = write_swath(tmp_path / "a.h5", {"HH": speckle((64, 96))}, grid=False)
    assert read_nisar(path).spacing_m == (4.0, 7.5)
    assert (SLANT_0, SLANT_STEP) == (900_000.0, 6.0)
