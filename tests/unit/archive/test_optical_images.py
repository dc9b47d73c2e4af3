"""Optical images of a catalogue or a folder, and terrain that moves the ground in a radar image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from archive_files import UTM, write_tif

from hpc.errors import ConfigError, DataError
from sarhpc.archive.ancillary.optical_images import OpticalIndex, list_optical
from sarhpc.archive.ancillary.optical_resampling import read_optical
from sarhpc.archive.ancillary.terrain_shift import ground_shift, read_height
from sarhpc.archive.stac_catalog import write_catalogue
from sarhpc.archive.stac_item import make_item

ORIGIN = Affine(1, 0, 600_000, 0, -1, 5_700_000)


def picture(path: Path, origin: Affine = ORIGIN, size: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_tif(path, np.full((3, size, size), 90, np.uint8), origin)


def test_a_folder_of_rasters_is_listed_with_place_and_time(tmp_path: Path) -> None:
    path = picture(tmp_path / "2021" / "one.tif")
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(TIFFTAG_DATETIME="2021:06:30 10:20:30")
    far = Affine(1, 0, 700_000, 0, -1, 5_700_000)
    picture(tmp_path / "2022" / "one.tif", far)
    write_tif(tmp_path / "lost.tif", np.ones((3, 8, 8), np.uint8), crs=None)
    (tmp_path / "torn.jp2").write_bytes(b"no image")
    found = list_optical(str(tmp_path))
    assert [image.id for image in found.images] == ["2021/one.tif", "2022/one.tif"]
    assert [image.datetime for image in found.images] == ["2021-06-30T10:20:30Z", None]
    assert "no CRS" in found.left_out["lost.tif"]
    assert "cannot read" in found.left_out["torn.jp2"]
    west, south, east, north = found.images[0].bbox
    assert east - west == pytest.approx(64 / 69_500, rel=0.05), "64 m at 51 degrees north"
    assert north - south == pytest.approx(64 / 111_200, rel=0.05)
    index = OpticalIndex(found.images)
    inside = ((west + east) / 2, (south + north) / 2)
    assert [image.id for image in index.touching((*inside, *inside))] == ["2021/one.tif"]
    assert OpticalIndex(()).touching((0, 0, 1, 1)) == []


def test_items_with_an_optical_asset_are_images_and_radar_is_not(tmp_path: Path) -> None:
    box = {"type": "Polygon", "coordinates": [[[4, 51], [5, 51], [5, 52], [4, 52], [4, 51]]]}

    def item(name: str, assets: dict[str, str], **properties: object) -> dict[str, object]:
        paths = {role: picture(tmp_path / name / file) for role, file in assets.items()}
        return make_item(
            name,
            bbox=(4, 51, 5, 52),
            geometry=box,
            datetime="2021-01-01T00:00:00Z",
            properties=properties,
            assets=paths,
        )

    items = [
        item("aerial", {"visual": "rgb.tif", "scl": "scl.tif"}, **{"eo:cloud_cover": 12.5}),
        item("pair", {"sar": "sar.tif", "optical": "rgb.tif"},
             **{"sar:frequency_band": "X", "sarhpc:optical_datetime": "2020-01-01T00:00:00Z"}),
        item("radar", {"sar": "sar.tif"}, **{"sar:frequency_band": "X"}),
    ]  # fmt: skip
    write_catalogue(items, tmp_path / "catalogue")
    found = list_optical(str(tmp_path / "catalogue"))
    aerial, pair = found.images
    assert (aerial.id, aerial.cloud_percent) == ("aerial", 12.5)
    assert aerial.cloud is not None
    assert aerial.cloud.endswith("scl.tif")
    assert (pair.datetime, aerial.datetime) == ("2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z")
    assert dict(found.left_out) == {"radar": "no optical asset"}
    assert json.loads(json.dumps(aerial.to_json())) == aerial.to_json()
    assert type(aerial).from_json(aerial.to_json()) == aerial


def test_a_place_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no archive at"):
        list_optical(str(tmp_path / "nowhere"))


def test_heights_lie_under_a_mirrored_tile_and_are_unknown_beyond_the_model(tmp_path: Path) -> None:
    east = np.tile(np.arange(100, dtype=np.float32), (100, 1))
    dem = write_tif(tmp_path / "dem.tif", east[None], ORIGIN)
    tile = tuple(ORIGIN @ Affine(-1, 0, 60, 0, 1, 10))[:6]
    height = read_height(dem, tile, UTM, (20, 40))
    assert np.allclose(height, 59 - np.arange(40), atol=1e-3)
    beyond = tuple(ORIGIN @ Affine.translation(90, 0))[:6]
    assert np.isnan(read_height(dem, beyond, UTM, (20, 40))[:, -1]).all()
    bare = write_tif(tmp_path / "bare.tif", east[None], crs=None)
    with pytest.raises(DataError, match="has no CRS"):
        read_height(bare, tile, UTM, (20, 40))


def test_a_plateau_is_looked_up_by_h_cot_theta_farther_in_range(tmp_path: Path) -> None:
    shift = ground_shift(np.full((4, 64), 30.0), 10.0, 45.0, 2.0)
    assert np.allclose(shift, 10.0), "20 m at 45 degrees are 10 columns of 2 m"


def test_the_optical_image_follows_a_hill_into_the_radar_geometry(tmp_path: Path) -> None:
    """A line drawn on the map at column x appears where the radar shows that ground."""
    columns = np.arange(256.0)
    hill = 20 * np.exp(-(((columns - 128) / 40) ** 2))
    painted = np.full((3, 16, 256), 40, np.uint8)
    lines = (60, 110, 128, 170)
    for line in lines:
        painted[:, :, line] = 255
    image = write_tif(tmp_path / "rgb.tif", painted, ORIGIN)
    shift = ground_shift(np.tile(hill, (16, 1)), 0.0, 60.0, 1.0)
    rgb, covered = read_optical(image, tuple(ORIGIN)[:6], UTM, (16, 256), shift=shift)
    assert covered.all()
    profile = rgb[8, :, 0].astype(float) - 40
    for line in lines:
        expected = line - hill[line] / np.tan(np.radians(60))
        near = np.arange(round(expected) - 3, round(expected) + 4)
        centre = (profile[near] * near).sum() / profile[near].sum()
        assert centre == pytest.approx(expected, abs=0.5)


def test_without_relief_nothing_moves(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    image = write_tif(tmp_path / "rgb.tif", rng.integers(1, 255, (3, 32, 32), np.uint8), ORIGIN)
    place = tuple(ORIGIN)[:6]
    plain, _ = read_optical(image, place, UTM, (32, 32))
    flat, _ = read_optical(image, place, UTM, (32, 32), shift=np.zeros((32, 32)))
    assert np.array_equal(plain, flat)
