"""The archive as a static STAC catalogue on disk: writing, reading and searching it.

Layout: `root/catalog.json` links `root/<id>/<id>.json`. All links and asset references are
relative, so that a catalogue can be moved with its data. Core STAC 1.1.0; 1.0 is read as well.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pystac

from hpc.errors import ConfigError, DataError
from hpc.plugins import load_plugin
from hpc.publish import publish_json
from sarhpc.archive.config import ArchiveConfig
from sarhpc.archive.scene import Archive, Scene
from sarhpc.archive.stac_checks import check_item
from sarhpc.archive.stac_files import item_paths, local_path, read_json
from sarhpc.archive.stac_item import (
    CATALOG_FILE,
    STAC_VERSION,
    BoundingBox,
    make_item,
    relative_reference,
    write_item,
)
from sarhpc.archive.time_interval import Interval, item_interval, parse_interval

__all__ = [
    "ENTRY_POINTS",
    "StacArchive",
    "make_item",
    "open_archive",
    "select_scenes",
    "write_catalogue",
    "write_item",
]

ENTRY_POINTS = "sarhpc.archives"
"""Entry-point group for archive plug-ins."""


def write_catalogue(
    items: Iterable[Mapping[str, Any] | Path],
    root: Path,
    *,
    catalogue_id: str = "sar-archive",
    description: str = "SAR scenes",
) -> Path:
    """Publish a catalogue of `items` under `root` and return the path of its catalog.json.

    An item is a value of `make_item`, published here, or the path of one already published by
    `write_item` (for example by another process). catalog.json is published last: a reader finds
    either the old catalogue or all of the new one. Equal items give equal bytes.

    Raises:
        DataError: two items share an id.
    """
    paths = [item if isinstance(item, Path) else write_item(item, root) for item in items]
    ids = [path.stem for path in paths]
    repeated = sorted(name for name, times in Counter(ids).items() if times > 1)
    if repeated:
        raise DataError(f"scene ids occur twice in {root}: {', '.join(repeated)}; rename them")
    folder = Path(os.path.abspath(root))
    catalogue = pystac.Catalog(catalogue_id, description)
    catalogue.clear_links()
    catalogue.add_link(pystac.Link("root", f"./{CATALOG_FILE}", "application/json"))
    catalogue.add_links(
        pystac.Link("item", f"./{relative_reference(path, folder)}", "application/geo+json")
        for _, path in sorted(zip(ids, paths, strict=True))
    )
    written = catalogue.to_dict(include_self_link=False, transform_hrefs=False)
    publish_json(root / CATALOG_FILE, {**written, "stac_version": STAC_VERSION})
    return root / CATALOG_FILE


class StacArchive:
    """A static STAC catalogue read from local files; nested catalogues are followed."""

    def __init__(self, root: Path | str) -> None:
        """Open the catalogue in folder `root`, or in the JSON file `root`.

        Raises:
            ConfigError: there is no such catalogue.
        """
        path = Path(root)
        self.path = path / CATALOG_FILE if path.is_dir() else path
        if not self.path.is_file():
            raise ConfigError(
                f"no STAC catalogue at {self.path}; write one with `sarhpc catalog FOLDER`"
            )

    def search(
        self,
        *,
        band: str | None = None,
        bbox: BoundingBox | None = None,
        datetime: str | None = None,
        ids: frozenset[str] | None = None,
        polarization: str | None = None,
    ) -> Iterator[Scene]:
        """Yield the scenes that match all given conditions, ordered by id.

        Raises:
            DataError: an item cannot be read, or refers to a file that is not local.
            ConfigError: `datetime` is neither a time nor an interval.
        """
        wanted = None if datetime is None else parse_interval(datetime)
        found = {}
        for path in item_paths(self.path):
            item = read_json(path)
            check_item(item, path)
            if item["id"] in found:
                raise DataError(f"scene id {item['id']} occurs twice in {self.path}; rename one")
            if (
                (ids is None or item["id"] in ids)
                and _matches_sensor(item, band, polarization)
                and (bbox is None or _touches(item.get("bbox"), bbox))
                and (wanted is None or _is_within(item, wanted, path))
            ):
                scene = _scene(item, path)
                found[scene.id] = scene
        yield from (found[name] for name in sorted(found))


def _scene(item: Mapping[str, Any], path: Path) -> Scene:
    try:
        bbox = item.get("bbox")
        entries = item["assets"]
        assets = {role: local_path(asset["href"], path) for role, asset in entries.items()}
        data = [role for role in sorted(entries) if "data" in entries[role].get("roles", ())]
        if "sar" not in assets and len(data) == 1:
            assets["sar"] = assets[data[0]]
        return Scene(
            id=item["id"],
            assets=assets,
            properties=item["properties"],
            bbox=None if bbox is None else _flat(bbox),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a valid STAC item: {error!r} is missing or wrong"
        ) from error


def _flat(bbox: list[float]) -> BoundingBox:
    """West, south, east, north of a STAC bbox, which may carry heights."""
    half = len(bbox) // 2
    return (bbox[0], bbox[1], bbox[half], bbox[half + 1])


def _matches_sensor(item: Mapping[str, Any], band: str | None, polarization: str | None) -> bool:
    properties = item["properties"]
    return (band is None or properties.get("sar:frequency_band") == band) and (
        polarization is None or polarization in (properties.get("sar:polarizations") or ())
    )


def _touches(bbox: list[float] | None, query: BoundingBox) -> bool:
    if bbox is None:
        return False
    west, south, east, north = _flat(bbox)
    if south > query[3] or north < query[1]:
        return False
    return any(
        a <= d and c <= b
        for a, b in _longitudes(west, east)
        for c, d in _longitudes(query[0], query[2])
    )


def _longitudes(west: float, east: float) -> list[tuple[float, float]]:
    """The longitude range as one interval, or as two where it crosses the antimeridian."""
    return [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]


def _is_within(item: Mapping[str, Any], wanted: Interval, path: Path) -> bool:
    try:
        interval = item_interval(item["properties"])
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"the time of scene {item['id']} in {path} is not RFC 3339 ({error}); correct it"
        ) from error
    return interval is not None and interval[0] <= wanted[1] and wanted[0] <= interval[1]


def open_archive(uri: str | Path) -> Archive:
    """The archive at `uri`: a folder or catalog.json, or `scheme:rest` for an installed plug-in.

    A plug-in is an entry point of the group `sarhpc.archives` whose name is the scheme: a callable
    that takes the rest as a string and returns an `Archive`.

    Raises:
        ConfigError: there is none, no plug-in has that name, or it cannot be loaded.
    """
    if Path(uri).exists():
        return StacArchive(uri)
    plugins = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    scheme, colon, rest = str(uri).partition(":")
    if not colon:
        raise ConfigError(
            f"no archive at {uri}: neither a folder, nor a catalog.json, nor SCHEME:REST with a "
            f"scheme of {', '.join(sorted(plugins))}"
        )
    if scheme not in plugins:
        raise ConfigError(
            f"no archive plug-in is named {scheme!r}; installed are {', '.join(sorted(plugins))} "
            f"(entry-point group {ENTRY_POINTS})"
        )
    archive: Archive = load_plugin(plugins[scheme], "archive")(rest)
    return archive


def select_scenes(cfg: ArchiveConfig) -> list[Scene]:
    """The scenes that `cfg` selects, ordered by id.

    Raises:
        ConfigError: the archive cannot be opened, or `bbox` does not have four numbers.
    """
    bbox = None
    if cfg.bbox is not None:
        if len(cfg.bbox) != 4:
            raise ConfigError("archive.bbox must be four numbers: west, south, east, north")
        bbox = _flat(cfg.bbox)
    return list(
        open_archive(cfg.uri).search(
            band=cfg.band,
            bbox=bbox,
            datetime=cfg.datetime,
            ids=None if cfg.ids is None else frozenset(cfg.ids),
            polarization=cfg.polarization,
        )
    )
