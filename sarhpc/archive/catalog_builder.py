"""Building a STAC catalogue from a folder of SAR files, as `sarhpc catalog` does.

Every file becomes a scene, the optical image of one, or is listed with a reason. A damaged file
does not stop the others.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hpc.errors import ConfigError, DataError
from hpc.regular_files import files_under
from sarhpc.archive.catalog_files import OpticalFile, SarFile, optical_file, optical_pairs
from sarhpc.archive.declaration import SIDECAR, Declaration, read_declarations
from sarhpc.archive.footprint import (
    geojson_bbox,
    geojson_polygon,
    wgs84_outline,
)
from sarhpc.archive.formats.declared import UndeclaredError
from sarhpc.archive.formats.format import ArchiveReader, Format, Layer
from sarhpc.archive.formats.readers import (
    find_format,
    known_formats,
    open_checked,
    raster_suffixes,
)
from sarhpc.archive.scene import SarReader, Scene
from sarhpc.archive.stac_catalog import write_catalogue
from sarhpc.archive.stac_item import make_item
from sarhpc.archive.stac_properties import (
    declared_properties,
    grid_properties,
    merged_properties,
)

PROBE_PIXELS = 4 << 20
"""Pixels read at each position where a scene is probed for damage and valid pixels."""


@dataclass(frozen=True)
class Skipped:
    """A file left out of the catalogue."""

    path: Path
    reason: str
    """Every reason that was found, one a line."""
    missing: Mapping[str, Any] = field(default_factory=dict)
    """Entries to declare -> a valid value; the file is catalogued once they are, where `only`."""
    only: bool = False
    """Whether nothing but declarations is missing."""


class NoSceneError(DataError):
    """Not one scene of a folder could be catalogued."""

    def __init__(self, message: str, skipped: Sequence[Skipped], names: Sequence[str]) -> None:
        super().__init__(message)
        self.skipped = tuple(skipped)
        self.names = tuple(names)
        """Every file of the folder, relative to it."""


@dataclass(frozen=True)
class CatalogReport:
    """Result of cataloguing a folder."""

    catalogue: Path
    """catalog.json."""
    scenes: tuple[str, ...]
    """Ids of the catalogued scenes, sorted."""
    optical: Mapping[str, Path]
    """Optical image by scene id, where there is one."""
    skipped: tuple[Skipped, ...]
    files: Mapping[str, SarFile] = field(default_factory=dict)
    """The SAR image by scene id."""
    names: tuple[str, ...] = ()
    """Every file of the folder, relative to it."""


@dataclass
class _Inventory:
    """Files classified so far."""

    sar: dict[str, SarFile] = field(default_factory=dict)
    optical: list[OpticalFile] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def add(self, path: Path, name: str, declared: Declaration) -> None:
        """Classify the file at `path`, or list it with all that is wrong with it.

        Where something is missing that could be declared, the search goes on as if it were. In a
        file of several images, one that cannot be used does not stop the others.
        """
        reasons: list[str] = []
        missing: dict[str, Any] = {}
        contents: Sequence[SarFile | OpticalFile | Skipped] | None = None
        while contents is None:
            try:
                contents = _contents(path, name, dataclasses.replace(declared, **missing))
            except DataError as error:
                reasons.append(f"{'as a SAR image: ' if 'role' in missing else ''}{error}")
                assumed = error.assumed if isinstance(error, UndeclaredError) else {}
                if not assumed.keys() - missing.keys():
                    self.skipped.append(Skipped(path, "\n".join(reasons), missing))
                    return
                missing |= assumed
        if reasons:
            self.skipped.append(Skipped(path, "\n".join(reasons), missing, only=True))
            return
        for item in contents:
            if isinstance(item, Skipped):
                self.skipped.append(item)
            elif isinstance(item, OpticalFile):
                self.optical.append(item)
            else:
                self._add_scene(item)

    def _add_scene(self, scene: SarFile) -> None:
        other = self.sar.setdefault(scene.id, scene)
        if other is not scene:
            taken = f"scene id {scene.id} is already taken by {other.path.name}"
            named = {"id": _safe_id(f"{scene.path.parent.name}-{scene.id}")}
            reason = f"{taken}; declare another id"
            self.skipped.append(Skipped(scene.path, reason, named, only=True))


def _contents(
    path: Path, name: str, declared: Declaration
) -> list[SarFile | OpticalFile | Skipped]:
    """The images in the file at `path`.

    Raises:
        DataError: the reason for leaving it out.
    """
    if declared.role == "skip":
        raise DataError("declared to be skipped")
    form = None if declared.role == "optical" else _format_of(path, declared)
    if form is None or (declared.role or form.role(path)) == "optical":
        return [optical_file(path, name, declared)]
    found: list[SarFile | OpticalFile | Skipped] = []
    for layer in form.layers(path):
        try:
            found.append(_sar_file(path, declared, form, layer))
        except DataError as error:
            if layer.name is None:
                raise
            missing = error.assumed if isinstance(error, UndeclaredError) else {}
            found.append(Skipped(path, f"{layer.name}: {error}", missing, only=bool(missing)))
    return found


def _format_of(path: Path, declared: Declaration) -> Format:
    form = find_format(path, declared.quantity)
    if form is None:
        raise DataError(f"not a raster that is read ({path.suffix.lower() or 'no suffix'})")
    return form


def catalog_directory(
    folder: str | Path,
    out: str | Path,
    *,
    declarations: Mapping[str, Any] | None = None,
    declared_in: str = "the declarations given",
) -> CatalogReport:
    """Catalogue the SAR files under `folder` into `out`; the report accounts for every file.

    Args:
        folder: searched with all its subfolders; never written to.
        out: becomes the STAC catalogue; assets are referenced where they are.
        declarations: overrides `folder/sarhpc.yaml`, same structure.
        declared_in: where they come from, for messages.

    Raises:
        ConfigError: invalid declarations, or `out` holds `folder`.
        DataError: no folder.
        NoSceneError: no scene could be catalogued.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; give the folder that holds the SAR files")
    if out.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise ConfigError(
            f"the catalogue in {out} would hold the files of {folder} themselves; give an empty "
            "folder outside of it, or one below it"
        )
    found = _Inventory()
    known = read_declarations(folder, declarations, declared_in)
    names = []
    unread: dict[Path, str] = {}
    for path in _files(folder, out, unread):
        names.append(path.relative_to(folder).as_posix())
        found.add(path, names[-1], known.of(names[-1]))
    sar, skipped = found.sar, found.skipped
    skipped += [Skipped(path, reason) for path, reason in unread.items()]
    if not sar:
        reasons = f"no SAR scene under {folder} could be catalogued: {_first(skipped)}"
        raise NoSceneError(reasons, sorted(skipped, key=lambda item: item.path), names)
    pairs = optical_pairs(sar.values(), found.optical)
    paired = {pair.path for pair in pairs.values() if pair is not None}
    skipped += [
        Skipped(image.path, "optical image over none of the scenes")
        for image in found.optical
        if image.path not in paired
    ]
    catalogue = write_catalogue(
        [_item(scene, pairs[scene.id]) for scene in sar.values()],
        out,
        catalogue_id=_safe_id(folder.resolve().name),
        description=f"SAR scenes of {folder.name}",
    )
    return CatalogReport(
        catalogue=catalogue,
        scenes=tuple(sorted(sar)),
        optical={name: pair.path for name, pair in sorted(pairs.items()) if pair is not None},
        skipped=tuple(sorted(skipped, key=lambda item: item.path)),
        files=dict(sorted(sar.items())),
        names=tuple(names),
    )


def _first(skipped: list[Skipped]) -> str:
    """The most useful reasons: those of rasters before those of other files."""
    rasters = raster_suffixes()
    ordered = sorted(skipped, key=lambda item: item.path.suffix.lower() not in rasters)
    named = (f"{item.path.name}: {item.reason.replace(chr(10), '; ')}" for item in ordered[:5])
    return "; ".join(named) or "no files"


def _files(folder: Path, out: Path, unread: dict[Path, str]) -> Iterator[Path]:
    for path in sorted(files_under(folder, unread)):
        if path.name == SIDECAR or out in path.parents or not (path.is_file() or path.is_symlink()):
            continue
        if not any(form.accompanies(path) for form in known_formats()):
            yield path


def _safe_id(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("-._") or "scene"


def _sar_file(path: Path, declared: Declaration, form: Format, layer: Layer) -> SarFile:
    """One SAR image of the file at `path`, opened and probed.

    Raises:
        DataError: it cannot be read, lacks what tiling needs, or holds no valid pixel.
    """
    from_file = form.properties(path, layer.name)
    properties = merged_properties(from_file, declared_properties(declared))
    scene_id = declared.id or _safe_id(path.stem)
    if layer.suffix:
        scene_id = _safe_id(f"{scene_id}-{layer.suffix}")
    reader = open_checked(form, Scene(scene_id, {"sar": path}, properties), path)
    try:
        _probe(reader, path)
        header = reader.header
    finally:
        reader.close()
    lonlat = None
    if header.corners is not None:
        lonlat = np.array(header.corners)
    elif header.crs is not None:
        lonlat = wgs84_outline(header.affine, header.shape, header.crs, header.placement)
    properties |= grid_properties(header)
    return SarFile(scene_id, path, properties, header, lonlat, declared.optical, form.media_type)


def _probe(reader: ArchiveReader, path: Path) -> None:
    """Raise DataError if the image is damaged at its ends or middle, or has no valid pixel."""
    height, width = reader.header.shape
    count = min(height, max(1, PROBE_PIXELS // width))
    ends_and_middle = (0, (height - count) // 2, height - count)
    # All three are read even if the first is valid: a truncated file fails at its end.
    seen = [_any_valid(reader, row, count) for row in ends_and_middle]
    if True not in seen and reader.is_empty():
        raise DataError(f"{path} has no valid pixel: all are nodata, NaN or zero; leave it out")


def _any_valid(reader: SarReader, row: int, count: int) -> bool:
    height, width = reader.header.shape
    _, valid = reader.read((row, min(row + count, height)), (0, width))
    return bool(valid.any())


def _item(scene: SarFile, image: OpticalFile | None) -> dict[str, Any]:
    properties = dict(scene.properties)
    assets = {"sar": scene.path}
    if image is not None:
        assets["optical"] = image.path
        if image.datetime is not None:
            properties["sarhpc:optical_datetime"] = image.datetime
        if image.in_scene_frame:
            properties["sarhpc:optical_frame"] = "scene"
    polygon = None if scene.lonlat is None else geojson_polygon(scene.lonlat)
    return make_item(
        scene.id,
        bbox=None if polygon is None else geojson_bbox(polygon),
        geometry=polygon,
        datetime=properties.pop("datetime", None),
        properties=properties,
        assets=assets,
        media_types={} if scene.media_type is None else {"sar": scene.media_type},
    )
