"""Optical images by position and time, from a STAC catalogue or a folder of rasters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from hpc.regular_files import files_under
from sarhpc.archive.footprint import wgs84_outline
from sarhpc.archive.raster_files import crs_text, has_affine, opened_raster
from sarhpc.archive.scene import Scene
from sarhpc.archive.stac_catalog import open_archive
from sarhpc.archive.stac_item import CATALOG_FILE, BoundingBox

_RASTERS = (".tif", ".tiff", ".jp2", ".vrt", ".png", ".jpg")
_PICTURES = ("optical", "visual", "image", "sar")
"""Assets that hold an image, in order of preference; `sar` is the name of a lone data asset."""
_MASKS = ("cloud", "scl")
_TIFF_TIME = "TIFFTAG_DATETIME"


@dataclass(frozen=True)
class OpticalImage:
    """One optical image: file, extent, time and cloud cover."""

    id: str
    path: str
    bbox: BoundingBox
    """West, south, east, north in degrees WGS84."""
    datetime: str | None = None
    cloud: str | None = None
    """Cloud mask: a raster of the same ground."""
    cloud_percent: float | None = None
    """Share of the whole image under clouds (`eo:cloud_cover`), per cent."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "bbox": list(self.bbox)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> OpticalImage:
        """The image written by `to_json`."""
        west, south, east, north = row["bbox"]
        return cls(**{**row, "bbox": (west, south, east, north)})


@dataclass(frozen=True)
class OpticalListing:
    """The optical images of an archive, by id, and those left out, with reasons."""

    images: tuple[OpticalImage, ...]
    left_out: Mapping[str, str]


def list_optical(uri: str) -> OpticalListing:
    """The optical images at `uri`: a catalogue as `open_archive` takes it, or a folder of rasters.

    Of a STAC item the asset `optical`, `visual` or `image` is taken, or the only data asset of an
    item without `sar:` properties; `cloud` or `scl` is its mask. In a folder without
    catalogue every raster with a CRS is an image, dated by its TIFF tag.

    Raises:
        ConfigError: nothing is at `uri`.
    """
    folder = Path(uri)
    images: dict[str, OpticalImage] = {}
    left_out: dict[str, str] = {}
    if folder.is_dir() and not (folder / CATALOG_FILE).exists():
        paths = [path for path in files_under(folder) if path.suffix.lower() in _RASTERS]
        names = sorted(str(path.relative_to(folder)) for path in paths)
        found = ((name, _of_raster(folder, name)) for name in names)
    else:
        found = ((scene.id, _of_item(scene)) for scene in open_archive(uri).search())
    for name, image in found:
        if isinstance(image, str):
            left_out[name] = image
        else:
            images[name] = image
    return OpticalListing(tuple(images[name] for name in sorted(images)), left_out)


def _of_item(scene: Scene) -> OpticalImage | str:
    radar = any(name.startswith("sar:") for name in scene.properties)
    names = [name for name in _PICTURES if name in scene.assets and not (radar and name == "sar")]
    if not names:
        return "no optical asset"
    if scene.bbox is None:
        return "no bbox: its extent is unknown"
    masks = [str(scene.assets[name]) for name in _MASKS if name in scene.assets]
    declared = scene.properties.get("sarhpc:optical_datetime")
    return OpticalImage(
        id=scene.id,
        path=str(scene.assets[names[0]]),
        bbox=scene.bbox,
        datetime=declared if radar else declared or scene.datetime,
        cloud=masks[0] if masks else None,
        cloud_percent=scene.properties.get("eo:cloud_cover"),
    )


def _of_raster(folder: Path, name: str) -> OpticalImage | str:
    path = folder / name
    try:
        with opened_raster(path) as dataset:
            crs = crs_text(dataset)
            if crs is None or not has_affine(dataset):
                return "no CRS and affine: its extent is unknown"
            lon, lat = wgs84_outline(dataset.transform[:6], dataset.shape, crs).T
            time = dataset.tags().get(_TIFF_TIME)
    except DataError as error:
        return str(error)
    west, south, east, north = (float(x) for x in (lon.min(), lat.min(), lon.max(), lat.max()))
    return OpticalImage(name, str(path), (west, south, east, north), _rfc3339(time))


def _rfc3339(tiff_time: str | None) -> str | None:
    """A TIFF time, `2021:06:30 10:20:30`, as RFC 3339; None for any other text."""
    if tiff_time is None or len(tiff_time) != 19:
        return None
    return f"{tiff_time[:10].replace(':', '-')}T{tiff_time[11:]}Z"


class OpticalIndex:
    """Spatial index of optical images."""

    def __init__(self, images: tuple[OpticalImage, ...]) -> None:
        """Index `images`, keeping their order."""
        self._images = images
        self._boxes: NDArray[np.float64] = np.array(
            [image.bbox for image in images], np.float64
        ).reshape(-1, 4)

    def touching(self, bbox: BoundingBox) -> list[OpticalImage]:
        """The images whose bounding box touches `bbox` (west, south, east, north in degrees)."""
        west, south, east, north = bbox
        box = self._boxes
        hit = (box[:, 0] <= east) & (box[:, 2] >= west)
        hit &= (box[:, 1] <= north) & (box[:, 3] >= south)
        return [self._images[number] for number in np.flatnonzero(hit)]
