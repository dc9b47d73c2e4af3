"""The SAR and the optical images in a folder, and which of them belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from hpc.errors import ConfigError
from sarhpc.archive.declaration import Declaration
from sarhpc.archive.footprint import covered_share, outline
from sarhpc.archive.raster_files import crs_text, has_affine, opened_raster
from sarhpc.archive.scene import SarHeader


@dataclass(frozen=True)
class SarFile:
    """A SAR image that became a scene."""

    id: str
    path: Path
    properties: Mapping[str, Any]
    header: SarHeader
    lonlat: NDArray[np.float64] | None
    optical: str | None
    media_type: str | None


@dataclass(frozen=True)
class OpticalFile:
    """An optical image in the folder."""

    name: str
    path: Path
    bands: int
    pixel: float
    crs: str | None
    outline: NDArray[np.float64] | None
    datetime: str | None
    in_scene_frame: bool


def optical_file(path: Path, name: str, declared: Declaration) -> OpticalFile:
    """What is to be known of the optical image at `path`, `name` in its folder.

    Raises:
        DataError: it cannot be read.
    """
    with opened_raster(path) as dataset:
        affine = tuple(dataset.transform)[:6]
        a, b, c, d, e, f = affine
        placed = has_affine(dataset)
        return OpticalFile(
            name=name,
            path=path,
            bands=dataset.count,
            pixel=float(np.sqrt(abs(a * e - b * d))),
            crs=crs_text(dataset),
            outline=outline((a, b, c, d, e, f), dataset.shape) if placed else None,
            datetime=declared.datetime,
            in_scene_frame=declared.frame == "scene",
        )


def optical_pairs(
    scenes: Iterable[SarFile], images: list[OpticalFile]
) -> dict[str, OpticalFile | None]:
    """The optical image of each scene by its id.

    Raises:
        ConfigError: names every declared image that is not there.
    """
    pairs: dict[str, OpticalFile | None] = {}
    wrong = []
    for scene in scenes:
        try:
            pairs[scene.id] = _optical_of(scene, images)
        except ConfigError as error:
            wrong.append(str(error))
    if wrong:
        raise ConfigError("\n".join(wrong))
    return pairs


def _optical_of(scene: SarFile, images: list[OpticalFile]) -> OpticalFile | None:
    """The declared optical image, else the one that covers most of the scene.

    Ties are broken by colour, then the finer pixel, then the name.

    Raises:
        ConfigError: the declared image is not among the optical files.
    """
    if scene.optical is not None:
        for image in images:
            if scene.optical in (image.name, image.path.name):
                return image
        raise ConfigError(
            f"{scene.path.name} declares the optical image {scene.optical}, which is not among the "
            f"optical files: {', '.join(image.name for image in images) or 'none'}; correct it"
        )
    ranked = [
        (-round(share, 3), -min(image.bands, 3), image.pixel, image.name, image)
        for image in images
        if (share := _overlap(scene, image)) > 0
    ]
    return min(ranked, key=lambda entry: entry[:-1])[-1] if ranked else None


def _overlap(scene: SarFile, image: OpticalFile) -> float:
    """Share of the scene that the image covers; 0 where one of them has no georeference."""
    if scene.header.crs is None or image.crs is None or image.outline is None:
        return 0.0
    points = image.outline
    if image.crs != scene.header.crs:
        transformer = Transformer.from_crs(image.crs, scene.header.crs, always_xy=True)
        points = np.stack(transformer.transform(*points.T), axis=1)
        if not np.isfinite(points).all():
            return 0.0
    header = scene.header
    # A scene placed by control points is convex enough for a share of its area.
    edge = outline(header.affine, header.shape, placement=header.placement)
    return covered_share(edge, points)
