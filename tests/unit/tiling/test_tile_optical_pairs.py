"""Optical images for tiles that stand: which is chosen, what is left out, and why."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from sarhpc.archive.ancillary.optical_images import OpticalImage, OpticalIndex
from sarhpc.archive.footprint import wgs84_outline
from sarhpc.shards.images import decode_rgb8
from sarhpc.shards.sample import Sample, encode_json
from sarhpc.tiling.config import OpticalConfig
from sarhpc.tiling.pairs.optical_mosaic import PairedShard, pair_tiles, with_optical

UTM = "EPSG:32631"
ORIGIN = Affine(1, 0, 600_000, 0, -1, 5_700_000)
SIDE = 32


def image(
    folder: Path, name: str, code: int, *, col: int = 0, width: int = 64, **facts: Any
) -> OpticalImage:
    """An image of one grey, `width` metres wide from column `col` of the ground on."""
    affine = ORIGIN @ Affine.translation(col, 0)
    path = folder / f"{name}.tif"
    _write(path, np.full((3, 64, width), code, np.uint8), affine)
    lon, lat = wgs84_outline(tuple(affine)[:6], (64, width), UTM).T
    bbox = (lon.min(), lat.min(), lon.max(), lat.max())
    return OpticalImage(name, str(path), bbox, **facts)


def mask(folder: Path, name: str, codes: np.ndarray) -> str:
    path = folder / f"{name}_scl.tif"
    _write(path, codes[None].astype(np.uint8), ORIGIN)
    return str(path)


def _write(path: Path, bands: np.ndarray, affine: Affine) -> None:
    count, height, width = bands.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width,
        dtype=bands.dtype, crs=UTM, transform=affine,
    ) as dataset:  # fmt: skip
        dataset.write(bands)


def tile(col: int = 0, **facts: Any) -> dict[str, Any]:
    """Metadata of a tile of 32 m at column `col` of the ground."""
    affine = tuple(ORIGIN @ Affine.translation(col, 0))[:6]
    footprint = wgs84_outline(affine, (SIDE, SIDE), UTM).tolist()
    return {"affine": list(affine), "crs": UTM, "footprint": footprint,
            "datetime": "2021-07-01T00:00:00Z", "pixel_m": 1.0, "incidence_deg": 45.0,
            **facts}  # fmt: skip


def pair(images: Iterable[OpticalImage], meta: dict[str, Any], **limits: Any) -> PairedShard:
    index = OpticalIndex(tuple(images))
    made = pair_tiles([("00000000000", meta, (SIDE, SIDE))], index, OpticalConfig(**limits))
    return PairedShard(iter(list(made.samples)), made.missing)


def picture_and_note(shard: PairedShard) -> tuple[np.ndarray, dict[str, Any]]:
    [sample] = shard.samples
    return decode_rgb8(sample.members["optic.png"]), json.loads(sample.members["optic.json"])


def test_the_nearest_in_time_is_taken_and_unknown_times_come_last(tmp_path: Path) -> None:
    images = [
        image(tmp_path, "undated", 10),
        image(tmp_path, "old", 20, datetime="2015-07-01T00:00:00Z"),
        image(tmp_path, "near", 30, datetime="2021-06-21T00:00:00Z"),
    ]
    picture, note = picture_and_note(pair(images, tile()))
    assert (picture == 30).all()
    assert (note["optic_datetime"], note["optic_delta_days"]) == ("2021-06-21T00:00:00Z", 10.0)
    assert [part["id"] for part in note["optic_images"]] == ["near"]
    late = pair(images[:2], tile(), max_delta_days=365)
    assert list(late.samples) == []
    assert dict(late.missing) == {"too_far_in_time": 1}


def test_sheets_that_abut_are_put_together(tmp_path: Path) -> None:
    west = image(tmp_path, "west", 50, col=0, width=40, datetime="2021-07-03T00:00:00Z")
    east = image(tmp_path, "east", 200, col=40, width=40, datetime="2021-07-02T00:00:00Z")
    picture, note = picture_and_note(pair([west, east], tile(col=24)))
    assert (picture[:, :15] == 50).all()
    assert (picture[:, 17:] == 200).all()
    assert {part["id"]: part["share"] for part in note["optic_images"]} == {
        "east": 0.5,
        "west": 0.5,
    }
    alone = pair([west], tile(col=24))
    assert list(alone.samples) == []
    assert dict(alone.missing) == {"not_covered": 1}


def test_clouds_are_judged_over_the_tile_by_the_codes_of_the_mask(tmp_path: Path) -> None:
    codes = np.full((64, 64), 4)
    codes[:, :16] = 9
    cloudy = image(tmp_path, "cloudy", 30, datetime="2021-07-01T00:00:00Z",
                   cloud=mask(tmp_path, "cloudy", codes))  # fmt: skip
    clear = image(tmp_path, "clear", 60, datetime="2021-01-01T00:00:00Z")
    scl = {"cloud_codes": [3, 8, 9, 10]}
    picture, note = picture_and_note(pair([cloudy, clear], tile(), **scl))
    assert (picture == 60).all(), "half of the nearer one's tile is under a cloud"
    picture, note = picture_and_note(pair([cloudy, clear], tile(col=20), **scl))
    assert (picture == 30).all(), "beside the cloud it is clear"
    assert note["optic_images"][0]["cloud"] == 0.0
    shard = pair([cloudy], tile(), **scl)
    assert list(shard.samples) == []
    assert dict(shard.missing) == {"cloudy": 1}


def test_without_a_mask_the_cover_of_the_whole_image_decides(tmp_path: Path) -> None:
    hazy = image(tmp_path, "hazy", 30, cloud_percent=40.0)
    assert list(pair([hazy], tile()).samples) == []
    assert len(list(pair([hazy], tile(), max_cloud=0.5).samples)) == 1


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        (tile(crs=None), "no_position"),
        (tile(footprint=None), "no_position"),
        (tile(col=5000), "no_image"),
    ],
)
def test_a_tile_without_image_says_why(tmp_path: Path, meta: dict[str, Any], reason: str) -> None:
    shard = pair([image(tmp_path, "one", 30)], meta)
    assert list(shard.samples) == []
    assert dict(shard.missing) == {reason: 1}


def test_a_torn_image_is_left_out_for_the_next_one(tmp_path: Path) -> None:
    torn = image(tmp_path, "a_torn", 30)
    Path(torn.path).write_bytes(b"II*\0 nothing more")
    picture, _ = picture_and_note(pair([torn, image(tmp_path, "whole", 70)], tile()))
    assert (picture == 70).all()


def test_terrain_moves_the_picture_and_its_absence_is_a_reason(tmp_path: Path) -> None:
    stripes = np.zeros((3, 64, 64), np.uint8) + 40
    stripes[:, :, 30] = 240
    striped = image(tmp_path, "striped", 0)
    _write(Path(striped.path), stripes, ORIGIN)
    dem = tmp_path / "dem.tif"
    _write(dem, np.full((1, 80, 80), 5, np.float32), ORIGIN @ Affine.translation(-4, -4))
    limits = {"dem": str(dem), "reference_height_m": 0.0, "min_coverage": 0.5}
    picture, note = picture_and_note(pair([striped], tile(), **limits))
    assert picture[10, :, 0].argmax() == 25, "5 m at 45 degrees show 5 columns nearer"
    assert note["optic_on_terrain"] is True
    unknown = pair([striped], tile(incidence_deg=None), **limits)
    assert list(unknown.samples) == []
    assert dict(unknown.missing) == {"no_height": 1}


def test_the_tile_gains_picture_and_dates_and_keeps_the_rest(tmp_path: Path) -> None:
    meta = tile(key="00000000000", optic_datetime=None, optic_delta_days=None)
    old = Sample("00000000000", {"sar.png": b"sar", "meta.json": encode_json(meta)})
    dated = image(tmp_path, "near", 30, datetime="2021-06-21T00:00:00Z")
    [paired] = pair([dated], tile()).samples
    new = with_optical(old, paired)
    assert new.members["sar.png"] == b"sar"
    assert decode_rgb8(new.members["optic.png"]).shape == (SIDE, SIDE, 3)
    assert new.meta["optic_delta_days"] == 10.0
    assert {name: new.meta[name] for name in ("affine", "crs", "key")} == {
        name: meta[name] for name in ("affine", "crs", "key")
    }
    assert with_optical(old, None) is old
