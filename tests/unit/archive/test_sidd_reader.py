"""SIDD: the real TerraSAR-X chip and the malformed one, and products written from the real XML."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import sarkit.sidd
from pyproj import Transformer

from hpc.errors import DataError
from sarhpc.archive.catalog_builder import catalog_directory
from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.formats.sidd.metadata import read_sidd_metadata
from sarhpc.archive.formats.sidd.reader import SiddReader
from sarhpc.archive.scene import Scene
from sarhpc.tiling.config import TileConfig
from sarhpc.tiling.plan import plan_scenes

CHIP = "nitf_six/cropped_sidd.nitf"
MALFORMED = "nitf_six/sidd_1.0.0.nitf"


@pytest.fixture(scope="module")
def xml(test_data: Path):
    with (test_data / CHIP).open("rb") as file:
        return sarkit.sidd.NitfReader(file).metadata.images[0].xmltree


def write_sidd(path: Path, tree, pixels: np.ndarray, **texts: str) -> Path:
    """A SIDD of `pixels` with the metadata of the real chip; keywords replace elements' texts."""
    tree = copy.deepcopy(tree)
    for row, col in (("PixelFootprint", pixels.shape), ("ChipSize", pixels.shape)):
        element = tree.find(f".//{{*}}{row}")
        element[0].text, element[1].text = map(str, col)
    last_row, last_col = pixels.shape[0] - 1, pixels.shape[1] - 1
    for corner, place in (
        ("UpperRight", (0, last_col)),
        ("LowerLeft", (last_row, 0)),
        ("LowerRight", (last_row, last_col)),
    ):
        element = tree.find(f".//{{*}}Original{corner}Coordinate")
        element[0].text, element[1].text = map(str, place)
    for name, text in texts.items():
        tree.find(".//{*}" + name.replace("__", "/{*}")).text = text
    if "PixelType" in texts and texts["PixelType"] != "MONO8LU":
        remap = tree.find(".//{*}MonochromeDisplayRemap")
        remap.remove(remap.find("{*}RemapLUT"))
    security = {"security": {"clas": "U"}}
    metadata = sarkit.sidd.NitfMetadata(
        file_header_part={"ostaid": "test", "ftitle": "test", **security},
        images=[
            sarkit.sidd.NitfProductImageMetadata(
                xmltree=tree,
                im_subheader_part={**security, "iid2": "x"},
                de_subheader_part=security,
                lookup_table=np.arange(256, dtype=np.uint16)
                if tree.findtext(".//{*}PixelType") == "MONO8LU"
                else None,
            )
        ],
    )
    with path.open("wb") as file, sarkit.sidd.NitfWriter(file, metadata) as writer:
        writer.write_image(0, pixels)
    return path


def opened(path: Path, **properties) -> SiddReader:
    named = {key.replace("__", ":"): value for key, value in properties.items()}
    reader = open_sar(Scene("s", {"sar": path}, named))
    assert isinstance(reader, SiddReader)
    return reader


def test_the_real_chip_lies_on_its_own_footprint_to_a_tenth_of_a_pixel(
    test_data: Path, xml
) -> None:
    header = opened(test_data / CHIP).header
    vertices = [
        (float(v.findtext("{*}Lon")), float(v.findtext("{*}Lat")))
        for v in xml.findall(".//{*}Footprint/{*}Vertex")
    ]
    corners = np.array([(0.5, 0.5), (4.5, 0.5), (4.5, 4.5), (0.5, 4.5)])
    to_map = Transformer.from_crs("EPSG:4326", header.crs, always_xy=True)
    truth = np.stack(to_map.transform(*np.array(vertices).T), axis=1)
    assert header.placement is not None
    assert np.hypot(*(header.placement.to_map(corners) - truth).T).max() < 0.08
    assert header.spacing_m == pytest.approx((0.8392, 0.8392), abs=1e-4)


def test_the_geometry_is_that_of_the_file(test_data: Path, xml) -> None:
    header = opened(test_data / CHIP).header
    graze = float(xml.findtext(".//{*}Graze"))
    assert header.incidence_deg == pytest.approx(90 - graze, abs=0.01)
    # Shadow runs along increasing rows (its angle is 0), away from the sensor.
    assert header.range_direction == "+row"
    assert header.look_side == "right"
    assert header.calibration == "none"
    metadata = read_sidd_metadata(test_data / CHIP)
    assert (metadata.remap, metadata.polarization, metadata.collector) == ("PEDF", "HH", "TSX-1")


def test_the_malformed_product_and_the_empty_one_are_listed_with_their_reasons(
    test_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="describes no plane: unit vectors of length 0"):
        opened(test_data / MALFORMED)
    report = catalog_directory(test_data / "nitf_six", tmp_path)
    why = {item.path.name: item.reason for item in report.skipped}
    assert "describes no plane" in why["sidd_1.0.0.nitf"]
    assert "no valid pixel" in why["cropped_sidd.nitf"]


def test_a_five_pixel_sicd_is_rejected_by_size_with_what_to_do(test_data: Path) -> None:
    scenes = [
        Scene(name, {"sar": test_data / f"nitf_six/{name}.nitf"})
        for name in ("cropped_sicd_110", "cropped_sicd_120", "sicd_50x50")
    ]
    plan = plan_scenes(scenes, TileConfig(pixel_m=None, allow_uncalibrated=True))
    assert plan.shards == []
    assert plan.rejected["cropped_sicd_110"].startswith("too_small: 5 x 5 pixels")
    assert plan.rejected["sicd_50x50"].startswith("too_small: 50 x 50 pixels")
    assert (
        "1.2" in plan.rejected["cropped_sicd_120"] or "5 x 5" in plan.rejected["cropped_sicd_120"]
    )


def test_pixels_come_behind_the_look_up_table(tmp_path: Path, xml) -> None:
    codes = np.arange(1, 61, dtype=np.uint8).reshape(6, 10) * 4
    path = write_sidd(tmp_path / "a.nitf", xml, codes)
    pixels, valid = opened(path).read((0, 6), (0, 10))
    table = np.array(xml.findtext(".//{*}RemapLUT").split(), np.float32)
    assert valid.all()
    assert np.array_equal(pixels, table[codes])
    scaled, _ = opened(path, sarhpc__scale=0.5).read((1, 4), (2, 9))
    assert np.array_equal(scaled, 0.5 * table[codes[1:4, 2:9]])
    assert opened(path, sarhpc__scale=0.5).header.calibration == "sigma0"


def test_sixteen_bits_have_no_table(tmp_path: Path, xml) -> None:
    codes = (np.arange(60, dtype=np.uint16).reshape(6, 10) + 1) * 1000
    path = write_sidd(tmp_path / "a.nitf", xml, codes, PixelType="MONO16I")
    assert np.array_equal(opened(path).read((0, 6), (0, 10))[0], codes.astype(np.float32))


def test_products_that_cannot_be_tiled_say_why(tmp_path: Path, xml) -> None:
    codes = np.ones((6, 10), np.uint8)
    # Turned by 45 degrees on its plane: range runs along a diagonal.
    row = np.array([float(e.text) for e in xml.find(".//{*}RowUnitVector")])
    col = np.array([float(e.text) for e in xml.find(".//{*}ColUnitVector")])
    turned = ((row + col) / np.sqrt(2), (col - row) / np.sqrt(2))
    texts = {
        f"{name}UnitVector__{axis}": repr(float(value))
        for name, vector in zip(("Row", "Col"), turned, strict=True)
        for axis, value in zip("XYZ", vector, strict=True)
    }
    diagonal = write_sidd(tmp_path / "d.nitf", xml, codes, **texts)
    with pytest.raises(DataError, match=r"range direction is 4[0-9] degrees off the image axes"):
        opened(diagonal)
    whole = write_sidd(tmp_path / "w.nitf", xml, codes).read_bytes()
    (tmp_path / "short.nitf").write_bytes(whole[:900])
    with pytest.raises(DataError, match="short"):
        opened(tmp_path / "short.nitf")


def test_a_turned_product_says_its_range_axis(tmp_path: Path, xml) -> None:
    """Columns along the real rows and rows against the real columns: range grows with columns."""
    row = np.array([float(e.text) for e in xml.find(".//{*}RowUnitVector")])
    col = np.array([float(e.text) for e in xml.find(".//{*}ColUnitVector")])
    texts = {
        f"{name}UnitVector__{axis}": repr(float(value))
        for name, vector in (("Row", -col), ("Col", row))
        for axis, value in zip("XYZ", vector, strict=True)
    }
    path = write_sidd(tmp_path / "t.nitf", xml, np.ones((6, 10), np.uint8), **texts)
    assert opened(path).header.range_direction == "+col"
