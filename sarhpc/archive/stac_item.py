"""STAC Items of scenes: built from known properties, published with relative references."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pystac
import pystac.utils

from hpc.errors import DataError
from hpc.publish import publish_json

CATALOG_FILE = "catalog.json"
STAC_VERSION = "1.1.0"
BoundingBox = tuple[float, float, float, float]
"""West, south, east, north in degrees WGS84; west > east crosses the antimeridian."""

_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SCHEMA_ROOT = "https://stac-extensions.github.io"
# An extension is declared only where its required fields are known.
_EXTENSIONS = {
    f"{_SCHEMA_ROOT}/sar/v1.1.0/schema.json": (
        "sar:instrument_mode",
        "sar:frequency_band",
        "sar:polarizations",
    ),
    f"{_SCHEMA_ROOT}/view/v1.0.0/schema.json": ("view:incidence_angle",),
    f"{_SCHEMA_ROOT}/projection/v2.0.0/schema.json": ("proj:shape",),
    f"{_SCHEMA_ROOT}/product/v0.1.0/schema.json": ("product:type",),
}
_MEDIA_TYPES = {
    ".tif": "image/tiff; application=geotiff",
    ".tiff": "image/tiff; application=geotiff",
    ".nitf": "application/vnd.nitf",
    ".ntf": "application/vnd.nitf",
    ".h5": "application/x-hdf5",
    ".hdf5": "application/x-hdf5",
    ".png": "image/png",
    ".json": "application/json",
}


def make_item(
    scene_id: str,
    *,
    bbox: BoundingBox | None,
    geometry: Mapping[str, Any] | None,
    datetime: str | None,
    properties: Mapping[str, Any],
    assets: Mapping[str, Path],
    media_types: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A STAC Item (a GeoJSON feature as plain JSON values) of one scene.

    Args:
        scene_id: also the name of the item's folder: letters, digits, dot, dash, underscore.
        bbox: west, south, east, north in degrees; None for a scene without georeference.
        geometry: GeoJSON footprint in WGS84; None if and only if `bbox` is None.
        datetime: RFC 3339 in UTC; None if unknown, which makes the time range open.
        properties: `sar:`, `view:`, `proj:`, `product:` and `sarhpc:` fields.
        assets: files by role (`sar`, `optical`, `label`, `height`, `shadow`, ...).
        media_types: media types by role; otherwise they follow from the suffix.

    Raises:
        DataError: the id cannot name a folder, the time is none, or only one of `bbox` and
            `geometry` is given.
    """
    if not _SAFE_ID.fullmatch(scene_id):
        raise DataError(
            f"scene id {scene_id!r} cannot name a folder; use letters, digits, '.', '-' and '_'"
        )
    if (bbox is None) != (geometry is None):
        raise DataError(f"scene {scene_id}: give both bbox and geometry, or neither")
    times = _time_fields(datetime)
    known = {**properties, **times}
    item = pystac.Item(
        scene_id,
        geometry=None if geometry is None else dict(geometry),
        bbox=None if bbox is None else list(bbox),
        datetime=None if datetime is None else _parsed(datetime, scene_id),
        properties=known,
        stac_extensions=[
            uri for uri, needed in _EXTENSIONS.items() if all(key in known for key in needed)
        ],
        assets={
            role: _asset(role, path, (media_types or {}).get(role))
            for role, path in sorted(assets.items())
        },
    )
    written = item.to_dict(include_self_link=False, transform_hrefs=False)
    # A time is recorded as the file states it, to the nanosecond if it does.
    written["properties"].update(times)
    return {**written, "stac_version": STAC_VERSION}


def _parsed(datetime: str, scene_id: str) -> Any:
    try:
        return pystac.utils.str_to_datetime(datetime)
    except (ValueError, OverflowError) as error:
        raise DataError(f"scene {scene_id}: datetime {datetime!r} is no time ({error})") from error


def _time_fields(datetime: str | None) -> dict[str, str | None]:
    if datetime is not None:
        return {"datetime": datetime}
    # STAC requires a range where the time is unknown; this one holds for any SAR image.
    return {
        "datetime": None,
        "start_datetime": "1951-06-01T00:00:00Z",
        "end_datetime": "9999-12-31T23:59:59Z",
    }


def _asset(role: str, path: Path, media_type: str | None) -> Any:
    media_type = media_type or _MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")
    roles = ["data"] if role == "sar" else ["overview" if role == "optical" else "metadata"]
    return pystac.Asset(os.path.abspath(path), media_type=media_type, roles=roles)


def write_item(item: Mapping[str, Any], root: Path) -> Path:
    """Publish `item` as `root/<id>/<id>.json` with relative references, and return that path."""
    path = root / item["id"] / f"{item['id']}.json"
    folder = Path(os.path.abspath(path.parent))
    assets = {
        role: {**asset, "href": relative_reference(Path(asset["href"]), folder)}
        for role, asset in item["assets"].items()
    }
    up = {"href": f"../{CATALOG_FILE}", "type": "application/json"}
    links = [{"rel": "root", **up}, {"rel": "parent", **up}]
    publish_json(path, {**item, "assets": assets, "links": links})
    return path


def relative_reference(target: Path, folder: Path) -> str:
    """The URI reference of `target` as seen from `folder`."""
    return quote(Path(os.path.relpath(os.path.abspath(target), folder)).as_posix())
