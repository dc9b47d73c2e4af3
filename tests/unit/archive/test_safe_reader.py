"""Sentinel-1 SAFE: real measurements of 210 control points under annotation as specified."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from safe_files import write_safe

from hpc.errors import DataError
from sarhpc.archive.catalog_builder import catalog_directory
from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.formats.safe.metadata import LookupTable, read_safe
from sarhpc.archive.formats.safe.reader import SafeReader
from sarhpc.archive.scene import Scene
from sarhpc.archive.stac_catalog import StacArchive
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard

SHAPE = (837, 1280)


def gain(row: float, col: float) -> float:
    return 400.0 + 0.1 * col + 0.02 * row


@pytest.fixture
def grd(test_data: Path) -> Path:
    return test_data / "sentinel1" / "cog_gcps.tif"


def reader_of(path: Path, **properties: object) -> SafeReader:
    reader = open_sar(Scene("scene", {"sar": path}, properties))
    assert isinstance(reader, SafeReader)
    return reader


def test_pixels_are_sigma0_by_the_table_of_the_annotation(grd: Path, tmp_path: Path) -> None:
    reader = reader_of(write_safe(tmp_path, grd, SHAPE, gain=gain))
    rows, cols = (100, 350), (900, 1200)
    pixels, valid = reader.read(rows, cols)
    with rasterio.open(grd) as file:
        numbers = file.read(1, window=(rows, cols)).astype(np.float64)
    table = gain(*np.meshgrid(np.arange(*rows), np.arange(*cols), indexing="ij"))
    assert pixels.dtype == np.float32
    assert np.allclose(pixels[valid], (numbers / table)[valid], rtol=2e-6)
    header = reader.header
    assert (header.calibration, header.range_direction, header.look_side, header.looks) == (
        "sigma0", "+col", "right", 4.4)  # fmt: skip
    assert header.placement is not None
    # One window or many: the table is the same.
    parts = [reader.read((r, r + 50), cols)[0] for r in range(100, 350, 50)]
    assert np.array_equal(np.vstack(parts), pixels)


def test_incidence_and_noise_are_known_at_every_pixel(grd: Path, tmp_path: Path) -> None:
    local = read_safe(write_safe(tmp_path, grd, SHAPE, gain=gain))
    for row, col in ((0, 0), (418, 639), (418, 640), (836, 1279)):
        found = local.at(row, col)
        assert found["incidence_deg"] == pytest.approx(30 + 0.01 * col, abs=1e-3)
        noise = 1600.0 * (2 if col >= 640 else 1) / gain(row, col) ** 2
        assert found["noise_floor_db"] == pytest.approx(10 * np.log10(noise), abs=0.002)


def test_noise_as_older_processors_wrote_it_and_none_at_all(grd: Path, tmp_path: Path) -> None:
    old = read_safe(write_safe(tmp_path / "old", grd, SHAPE, old_noise=True))
    assert old.at(10, 1000)["noise_floor_db"] == pytest.approx(-20.0, abs=1e-6)
    bare = read_safe(write_safe(tmp_path / "none", grd, SHAPE, noise=None))
    assert set(bare.at(10, 1000)) == {"incidence_deg"}


def test_single_look_pixels_stay_complex(test_data: Path, tmp_path: Path) -> None:
    name = "s1a-iw1-slc-vv-20220104t170558-20220104t170623-041314-04e951-004"
    source = test_data / "sentinel1" / f"{name}.tiff"
    with rasterio.open(source) as file:
        shape = file.shape
    path = write_safe(tmp_path, source, shape, product="SLC", name=name)
    reader = reader_of(path)
    assert (reader.header.is_complex, reader.header.calibration) == (True, "sigma0")
    pixels, _ = reader.read((6000, 6016), (10_000, 10_064))
    with rasterio.open(source) as file:
        numbers = file.read(1, window=((6000, 6016), (10_000, 10_064)))
    assert pixels.dtype == np.complex64
    assert np.allclose(pixels, np.nan_to_num(numbers) / 400.0)


def test_what_is_declared_counts_before_the_annotation(grd: Path, tmp_path: Path) -> None:
    path = write_safe(tmp_path, grd, SHAPE)
    plain = reader_of(path, **{"sarhpc:calibration": "none"})
    scaled = reader_of(path, **{"sarhpc:scale": 0.5, "sarhpc:calibration": "sigma0"})
    window = ((300, 310), (300, 310))
    with rasterio.open(grd) as file:
        numbers = file.read(1, window=window)
    assert plain.header.calibration == "none"
    assert np.array_equal(plain.read(*window)[0], numbers.astype(np.float32))
    assert np.array_equal(scaled.read(*window)[0], numbers * np.float32(0.5))


def test_a_product_is_catalogued_as_its_measurements_and_tiled(grd: Path, tmp_path: Path) -> None:
    write_safe(tmp_path / "in", grd, SHAPE, gain=gain)
    report = catalog_directory(tmp_path / "in", tmp_path / "out")
    assert (len(report.scenes), report.skipped) == (1, ())
    archive = StacArchive(report.catalogue.parent)
    [scene] = archive.search()
    assert scene.properties["datetime"].startswith("2018-07-16T06:06:23")
    known = {"platform": "sentinel-1a", "sar:frequency_band": "C", "sar:product_type": "GRD",
             "sarhpc:flight_line": "S1A-22822", "sarhpc:calibration": "sigma0"}  # fmt: skip
    assert {key: scene.properties[key] for key in known} == known
    cfg = TileConfig(
        tile_px=128, pixel_m=None, min_signal=0.0, split=SplitConfig(fractions=[1.0, 0.0, 0.0])
    )
    metas = [
        sample.meta
        for number, inputs in enumerate(plan_scenes(archive.search(), cfg).shards)
        for sample in tile_shard(number, inputs, archive, cfg).samples
    ]
    assert len(metas) > 30
    for meta in metas:
        row, col, height, width = meta["window"]
        middle = (row + height / 2, col + width / 2)
        assert meta["incidence_deg"] == pytest.approx(30 + 0.01 * middle[1], abs=1e-3)
        noise = 1600.0 * (2 if middle[1] >= 640 else 1) / gain(*middle) ** 2
        assert meta["noise_floor_db"] == pytest.approx(10 * np.log10(noise), abs=0.002)
    assert len({meta["incidence_deg"] for meta in metas}) > 5


def test_other_files_are_not_taken_for_a_product(grd: Path, tmp_path: Path) -> None:
    path = write_safe(tmp_path, grd, SHAPE)
    for file in (path.parent.parent / "annotation").glob("*.xml"):
        file.unlink()
    reader = open_sar(Scene("s", {"sar": path}, {"sarhpc:range_direction": "+col"}))
    assert not isinstance(reader, SafeReader)
    reader.close()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("<missionId>S1A</missionId>", "", "no adsHeader/missionId"),
        ("</product>", "", "does not follow the specification"),
        ("<product>", '<!DOCTYPE product [<!ENTITY x "y">]><product>', "entities"),
        ("<numberOfLooks>5</numberOfLooks>", "<numberOfLooks>five</numberOfLooks>", "five"),
    ],
)
def test_a_broken_annotation_names_itself(
    old: str, new: str, says: str, grd: Path, tmp_path: Path
) -> None:
    path = write_safe(tmp_path, grd, SHAPE)
    annotation = path.parent.parent / "annotation" / f"{path.stem}.xml"
    annotation.write_text(annotation.read_text().replace(old, new))
    with pytest.raises(DataError, match=says) as error:
        read_safe(path)
    assert annotation.name in str(error.value)


def test_entities_of_an_annotation_in_another_encoding_are_refused_too(
    grd: Path, tmp_path: Path
) -> None:
    path = write_safe(tmp_path, grd, SHAPE)
    annotation = path.parent.parent / "annotation" / f"{path.stem}.xml"
    text = annotation.read_text().replace("<missionId>S1A", "<missionId>&x;")
    annotation.write_text(f'<!DOCTYPE product [<!ENTITY x "S1A">]>{text}', encoding="utf-16")
    with pytest.raises(DataError, match="entities"):
        read_safe(path)


def test_tables_are_linear_between_their_vectors_and_constant_beyond() -> None:
    pixels = (np.array([0.0, 10.0]), np.array([0.0, 5.0, 10.0]), np.array([0.0, 10.0]))
    values = (np.array([1.0, 1.0]), np.array([3.0, 4.0, 5.0]), np.array([9.0, 9.0]))
    table = LookupTable(np.array([-10.0, 0.0, 10.0]), pixels, values)
    rows, cols = np.array([-20.0, -5.0, 0.0, 5.0, 30.0]), np.array([0.0, 2.5, 99.0])
    assert table.at(rows, cols).tolist() == [
        [1.0, 1.0, 1.0], [2.0, 2.25, 3.0], [3.0, 3.5, 5.0], [6.0, 6.25, 7.0], [9.0, 9.0, 9.0]
    ]  # fmt: skip
    for index, row in enumerate(rows):
        alone = table.at(rows[index : index + 1], cols)
        assert alone.tolist() == table.at(rows, cols)[index : index + 1].tolist(), row
