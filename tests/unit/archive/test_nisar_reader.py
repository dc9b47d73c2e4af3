"""GSLC, GCOV and RSLC in the layout of NISAR, written by h5py; no real product is at hand."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from nisar_files import (
    DX,
    DY,
    EPSG,
    X0,
    Y0,
    incidence,
    speckle,
    swath_to_map,
    write_grid,
    write_swath,
)

from hpc.errors import DataError
from sarhpc.archive.catalog_builder import catalog_directory
from sarhpc.archive.formats.nisar.metadata import layers_of, read_nisar
from sarhpc.archive.formats.nisar.reader import NisarReader
from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.scene import Scene
from sarhpc.archive.stac_catalog import StacArchive
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard

SHAPE = (96, 130)


def reader_of(path: Path, **properties: object) -> NisarReader:
    named = {key.replace("__", ":"): value for key, value in properties.items()}
    reader = open_sar(Scene("scene", {"sar": path}, named))
    assert isinstance(reader, NisarReader)
    return reader


def pixel_incidence(shape: tuple[int, int], height: float = 250.0) -> np.ndarray:
    row, col = np.indices(shape)
    return incidence(row + 0.5, col + 0.5, height)


def test_gslc_is_sigma0_by_the_incidence_at_the_height_of_the_terrain(tmp_path: Path) -> None:
    pixels = speckle(SHAPE)
    reader = reader_of(write_grid(tmp_path / "gslc.h5", {"HH": pixels}))
    read, valid = reader.read((0, SHAPE[0]), (0, SHAPE[1]))
    expected = pixels * np.sqrt(np.sin(np.radians(pixel_incidence(SHAPE))))
    assert read.dtype == np.complex64
    assert valid.all()
    assert np.allclose(read, expected, rtol=1e-5)
    parts = [reader.read((r, r + 32), (10, 90))[0] for r in (0, 32, 64)]
    assert np.array_equal(np.vstack(parts), read[:, 10:90])
    header = reader.header
    assert (header.crs, header.calibration, header.is_complex) == (f"EPSG:{EPSG}", "sigma0", True)
    assert header.affine == (DX, 0.0, X0, 0.0, DY, Y0)
    assert header.spacing_m == (5.0, 10.0)
    assert (header.look_side, header.looks) == ("left", 1.0)
    assert header.incidence_deg == pytest.approx(float(incidence(48, 65, 250)), abs=1e-3)
    assert header.local is not None
    assert header.local.at(10, 20)["incidence_deg"] == pytest.approx(34.47, abs=1e-3)


def test_gcov_is_gamma0_times_the_products_own_factor(tmp_path: Path) -> None:
    power = np.abs(speckle(SHAPE)) ** 2
    factor = np.linspace(0.7, 0.9, power.size, dtype=np.float32).reshape(SHAPE)
    power[50, 60], power[51, 61] = np.nan, -0.01
    mask = np.ones(SHAPE, np.uint8)
    mask[:, :7], mask[:4] = 0, 255
    layers = {"rtcGammaToSigmaFactor": factor, "mask": mask,
              "numberOfLooks": np.full(SHAPE, 6.5, np.float32)}  # fmt: skip
    path = write_grid(
        tmp_path / "gcov.h5", {"HHHH": power.astype(np.float32)}, product="GCOV", layers=layers
    )
    reader = reader_of(path)
    read, valid = reader.read((0, SHAPE[0]), (0, SHAPE[1]))
    assert read.dtype == np.float32
    assert not valid[:, :7].any()
    assert not valid[:4].any()
    assert not valid[50, 60]
    assert (valid[51, 61], read[51, 61]) == (True, 0)
    seen = valid & (power > 0)
    assert np.allclose(read[seen] ** 2, (power * factor)[seen], rtol=1e-5)
    assert (read[~valid] == 0).all()
    header = reader.header
    assert (header.looks, header.calibration, header.is_complex) == (6.5, "sigma0", False)


@pytest.mark.parametrize(
    ("convention", "factor", "calibration"),
    [("gamma0", False, "none"), ("sigma0", False, "sigma0"), ("beta0", True, "none")],
)
def test_gcov_without_a_way_to_sigma0_claims_none(
    convention: str, factor: bool, calibration: str, tmp_path: Path
) -> None:
    power = np.full(SHAPE, 0.04, np.float32)
    layers = {"rtcGammaToSigmaFactor": np.full(SHAPE, 0.5, np.float32)} if factor else {}
    path = write_grid(tmp_path / "gcov.h5", {"HVHV": power}, product="GCOV", layers=layers,
                      convention=convention)  # fmt: skip
    reader = reader_of(path)
    assert reader.header.calibration == calibration
    assert np.allclose(reader.read((0, 4), (0, 4))[0], 0.2)


def test_what_is_declared_counts_before_the_file(tmp_path: Path) -> None:
    pixels = speckle(SHAPE)
    path = write_grid(tmp_path / "gslc.h5", {"HH": pixels})
    bare = reader_of(path, sarhpc__calibration="none", sarhpc__range_direction="+row")
    assert bare.header.calibration == "none"
    assert bare.header.range_direction == "+row"
    assert np.array_equal(bare.read((0, 9), (0, 9))[0], pixels[:9, :9])
    scaled = reader_of(path, sarhpc__scale=0.5)
    assert scaled.header.calibration == "sigma0"
    assert np.allclose(scaled.read((0, 9), (0, 9))[0], 0.5 * pixels[:9, :9])


@pytest.mark.parametrize("table", [None, 2.0])
def test_numbers_that_are_not_said_to_be_beta0_are_not_calibrated(
    table: float | None, tmp_path: Path
) -> None:
    reader = reader_of(write_grid(tmp_path / "gslc.h5", {"HH": speckle(SHAPE)}, beta0=table))
    assert reader.header.calibration == "none"
    assert reader.metadata.radiometry == "unknown"


@pytest.mark.parametrize(
    ("line_of_sight", "passed", "looks", "direction"),
    [
        ((0.6, -0.1), "Ascending", "Left", "-col"),
        ((-0.6, 0.1), "Ascending", "Left", "+col"),
        ((0.1, 0.6), "Ascending", "Left", "+row"),
        ((0.1, -0.6), "Ascending", "Left", "-row"),
        (None, "Ascending", "Left", "-col"),
        (None, "Ascending", "Right", "+col"),
        (None, "Descending", "Left", "+col"),
        (None, "Descending", "Right", "-col"),
    ],
)
def test_range_grows_away_from_the_sensor(
    line_of_sight: tuple[float, float] | None,
    passed: str,
    looks: str,
    direction: str,
    tmp_path: Path,
) -> None:
    path = write_grid(
        tmp_path / "gslc.h5", {"HH": speckle(SHAPE)}, line_of_sight=line_of_sight,
        orbitPassDirection=passed, lookDirection=looks,
    )  # fmt: skip
    assert reader_of(path).header.range_direction == direction


def test_a_direction_nobody_knows_is_asked_for(tmp_path: Path) -> None:
    path = write_grid(tmp_path / "gslc.h5", {"HH": speckle(SHAPE)}, line_of_sight=None, epsg=3413)
    with pytest.raises(DataError, match="range direction"):
        reader_of(path)
    assert reader_of(path, sarhpc__range_direction="+col").header.crs == "EPSG:3413"


def test_half_floats_and_nan_around_the_scene(tmp_path: Path) -> None:
    pixels = speckle(SHAPE)
    pixels[:, 100:] = np.nan
    halves = np.empty(SHAPE, np.dtype([("r", "<f2"), ("i", "<f2")]))
    halves["r"], halves["i"] = pixels.real, pixels.imag
    reader = reader_of(write_grid(tmp_path / "gslc.h5", {"VV": halves}))
    read, valid = reader.read((0, 20), (80, 130))
    assert valid[:, :20].all()
    assert not valid[:, 20:].any()
    scale = np.sqrt(np.sin(np.radians(pixel_incidence(SHAPE))))
    assert np.allclose(read[:, :20], (pixels * scale)[:20, 80:100], rtol=2e-3, atol=1e-4)


def test_zeros_to_the_edge_are_outside_and_zeros_within_are_shadow(tmp_path: Path) -> None:
    pixels = speckle(SHAPE)
    pixels[:, :11], pixels[40:44, 60:66] = 0, 0
    reader = reader_of(write_grid(tmp_path / "gslc.h5", {"HH": pixels}))
    _, valid = reader.read((30, 60), (0, 130))
    assert not valid[:, :11].any()
    assert valid[:, 11:].all()


def test_zeros_within_bounds_that_the_file_tells_are_pixels(tmp_path: Path) -> None:
    pixels, mask = speckle(SHAPE), np.ones(SHAPE, np.uint8)
    pixels[:, :11], mask[:, :5] = 0, 0
    path = write_grid(tmp_path / "gslc.h5", {"HH": pixels}, layers={"mask": mask})
    _, valid = reader_of(path).read((30, 60), (0, 130))
    assert not valid[:, :5].any()
    assert valid[:, 5:].all()


def test_a_swath_lies_where_its_grid_says_at_the_height_of_the_terrain(tmp_path: Path) -> None:
    pixels = speckle(SHAPE)
    reader = reader_of(write_swath(tmp_path / "rslc.h5", {"HV": pixels}, valid=(3, 120)))
    header = reader.header
    assert header.placement is not None
    assert header.crs == f"EPSG:{EPSG}"
    corners = np.array([[0.0, 0.0], [130, 0], [130, 96], [65, 48]])
    expected = np.stack(swath_to_map(corners[:, 1], corners[:, 0], 250.0), axis=1)
    assert np.allclose(header.placement.to_map(corners), expected, atol=0.05)
    assert header.spacing_m == pytest.approx((4.0, 7.5), rel=0.01)
    assert (header.range_direction, header.look_side) == ("+col", "left")
    read, valid = reader.read((0, 96), (0, 130))
    assert valid[:, 3:120].all()
    assert not valid[:, :3].any()
    assert not valid[:, 120:].any()
    scale = np.sqrt(np.sin(np.radians(pixel_incidence(SHAPE))))
    assert np.allclose(read[valid], (pixels * scale)[valid], rtol=1e-5)


def test_uavsar_without_a_grid_stays_in_a_local_frame(tmp_path: Path) -> None:
    """First samples call the product SLC; without angles nothing becomes sigma0."""
    path = write_swath(
        tmp_path / "uavsar.h5", {"HH": speckle(SHAPE)}, product="SLC", grid=False,
        platformName="UAVSAR", absoluteOrbitNumber=np.uint32(14166),
    )  # fmt: skip
    header = reader_of(path).header
    assert (header.crs, header.placement, header.calibration) == (None, None, "none")
    assert header.affine == (7.5, 0.0, 0.0, 0.0, -4.0, 0.0)
    metadata = read_nisar(path)
    assert (metadata.platform, metadata.orbit) == ("uavsar", "uavsar-14166")
    bare = write_swath(tmp_path / "bare.h5", {"HH": speckle(SHAPE)}, grid=False, spacing=None)
    with pytest.raises(DataError, match="spacing_m"):
        reader_of(bare)
    assert reader_of(bare, sarhpc__spacing_m=[1.0, 2.0]).header.spacing_m == (1.0, 2.0)


def test_each_image_of_a_file_becomes_a_scene(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    path = write_grid(data / "NISAR_L2.h5", {"HH": speckle(SHAPE), "HV": speckle(SHAPE, 1)})
    write_grid(path, {"HH": np.full(SHAPE, np.nan, np.complex64)}, frequency="frequencyB")
    write_grid(data / "s.h5", {"VV": speckle(SHAPE, 2)}, band="SSAR")
    (data / "notes.h5").write_bytes(b"no HDF5 at all")
    with h5py.File(data / "other.h5", "w") as file:
        file["temperatures"] = np.zeros(4)
    assert layers_of(path) == ["LSAR/frequencyA/HH", "LSAR/frequencyA/HV", "LSAR/frequencyB/HH"]
    report = catalog_directory(data, tmp_path / "catalogue")
    assert report.scenes == ("NISAR_L2-LSAR-A-HH", "NISAR_L2-LSAR-A-HV", "s")
    reasons = {item.path.name: item.reason for item in report.skipped}
    assert "no valid pixel" in reasons["NISAR_L2.h5"]
    assert "layout of NISAR" in reasons["notes.h5"]
    assert "no /science/LSAR" in reasons["other.h5"]
    first, second, third = StacArchive(tmp_path / "catalogue").search()
    assert second.properties["sar:polarizations"] == ["HV"]
    assert (first.band, third.band) == ("L", "S")
    assert first.datetime == "2025-11-09T05:16:46.500000Z"
    assert first.properties["sarhpc:flight_line"] == "nisar-1234"
    assert first.properties["proj:code"] == f"EPSG:{EPSG}"
    assert first.bbox is not None


def test_several_images_are_not_chosen_among_in_silence(tmp_path: Path) -> None:
    path = write_grid(tmp_path / "two.h5", {"HH": speckle(SHAPE), "HV": speckle(SHAPE)})
    with pytest.raises(DataError, match="catalogue it"):
        reader_of(path)
    with pytest.raises(DataError, match="no image LSAR/frequencyA/VV"):
        reader_of(path, sarhpc__layer="LSAR/frequencyA/VV")


def test_damage_and_degrees_are_refused(tmp_path: Path) -> None:
    path = write_grid(tmp_path / "degrees.h5", {"HH": speckle(SHAPE)}, epsg=4326)
    with pytest.raises(DataError, match="not in metres"):
        reader_of(path)
    whole = write_grid(tmp_path / "whole.h5", {"HH": speckle(SHAPE)})
    torn = tmp_path / "torn.h5"
    torn.write_bytes(whole.read_bytes()[:9000])
    with pytest.raises(DataError, match="layout of NISAR"):
        reader_of(torn)
    with pytest.raises(DataError, match="no such file"):
        reader_of(tmp_path / "absent.h5")


def test_tiles_are_cut_from_a_gslc_with_their_place_and_incidence(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_grid(data / "gslc.h5", {"HH": speckle((300, 200))})
    catalog_directory(data, tmp_path / "catalogue")
    archive = StacArchive(tmp_path / "catalogue")
    cfg = TileConfig(
        tile_px=32, pixel_m=None, detect_first=True, shard_samples=1000,
        split=SplitConfig(fractions=[1.0, 0.0, 0.0]),
    )  # fmt: skip
    plan = plan_scenes(archive.search(), cfg).shards
    samples = [
        s for n, inputs in enumerate(plan) for s in tile_shard(n, inputs, archive, cfg).samples
    ]
    assert samples
    for sample in samples:
        meta = sample.meta
        assert (meta["crs"], meta["calibration"]) == (f"EPSG:{EPSG}", "sigma0")
        assert (meta["band"], meta["polarization"], meta["platform"]) == ("L", "HH", "nisar")
        row, col, rows, cols = meta["window"]
        middle = incidence(row + rows / 2, col + cols / 2, 250)
        assert meta["incidence_deg"] == pytest.approx(float(middle), abs=1e-3)
