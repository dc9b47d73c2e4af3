"""Importing third-party images as tiles: planned into shards, and converted as they are.

What a file does not state stays unknown (`null` in `meta.json`): position, spacing, calibration,
look direction. What it does state is kept unchanged under `origin`.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.archive.scene import RangeDirection
from sarhpc.shards.foreign import (
    RADAR,
    ForeignSample,
    Item,
    kept_meta,
    list_foreign,
    read_foreign,
)
from sarhpc.shards.radiometry import Normalisation
from sarhpc.shards.sample import SAMPLE_SCHEMA, SPLITS, Sample, encode_json, sample_key
from sarhpc.shards.schema import GEOLOCATION, UNKNOWN
from sarhpc.tiling.config import ImportConfig
from sarhpc.tiling.config_checks import check_import
from sarhpc.tiling.fingerprints import content_digest, ground_hash
from sarhpc.tiling.image_pixels import (
    Cut,
    cuts_of,
    decoded_image,
    encoded_layer,
    encoded_pictures,
    gray_image,
)
from sarhpc.tiling.orientation import Orientation, canonical_orientation
from sarhpc.tiling.public_sets import public_facts
from sarhpc.tiling.tile import TiledShard

_FOLDERS = {**{name: name for name in SPLITS}, "validation": "val", "valid": "val"}
_SPLIT_NAME = re.compile(rf"({'|'.join(_FOLDERS)})[-_.]?\d*\.tar|({'|'.join(_FOLDERS)})[-_].*\.tar")
_LEVEL_IMAGES = 256
"""Images that one law for all is measured on."""


@dataclass(frozen=True)
class ImportPlan:
    """Inputs of each shard, of one source and one split, and files left out with the reason."""

    shards: tuple[dict[str, Any], ...]
    rejected: Mapping[str, str]


def plan_import(cfg: ImportConfig) -> ImportPlan:
    """The shards into which the images under `cfg.path` are converted.

    Raises:
        ConfigError: fractions that do not sum to 1, or an unknown policy.
        DataError: there are no images, or none below a folder of `cfg.classes`.
    """
    check_import(cfg)
    listing = list_foreign(Path(cfg.path), with_facts=cfg.group is not None)
    if cfg.classes is not None:
        _require_classes(listing.items, cfg.classes, cfg.path)
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in listing.items:
        groups.setdefault((item.source, _split(item, cfg)), []).append(item)
    shards: list[dict[str, Any]] = []
    for (source, split), items in sorted(groups.items(), key=lambda pair: pair[0]):
        for first in range(0, len(items), cfg.shard_samples):
            rows = [_row(item) for item in items[first : first + cfg.shard_samples]]
            shards.append({"source": source, "split": split, "items": rows})
    if cfg.level_scope == "set":
        law = _common_law(cfg, listing.items).to_json()
        shards = [{**shard, "normalisation": law} for shard in shards]
    return ImportPlan(tuple(shards), listing.left_out)


def _common_law(cfg: ImportConfig, items: Sequence[Item]) -> Normalisation:
    """The normalisation of all images of more than 8 bits, by the mean and deviation of some.

    Raises:
        DataError: none of those measured has more than 8 bits and a signal.
    """
    count, total, squares = 0, 0.0, 0.0
    step = max(math.ceil(len(items) / _LEVEL_IMAGES), 1)
    by_source = itertools.groupby(items[::step], key=lambda item: item.source)
    for _, some in by_source:
        for foreign in read_foreign(Path(cfg.path), list(some), _kinds(cfg)):
            try:
                pixels = decoded_image(foreign, cfg.quantity)
            except DataError:
                continue
            if pixels.dtype != np.uint8:
                amplitude = np.abs(pixels).astype(np.float64)
                count, total = count + amplitude.size, total + float(amplitude.sum())
                squares += float(np.square(amplitude).sum())
    if not total > 0:
        raise DataError(
            f"imported.level_scope=set: {cfg.path} holds no image of more than 8 bits with a "
            "signal among those measured; leave it at image"
        )
    mu = total / count
    sigma = math.sqrt(max(squares / count - mu**2, 0.0))
    return Normalisation("mu+3sigma", mu, sigma, mu + 3 * sigma)


def _kinds(cfg: ImportConfig) -> Sequence[str]:
    """Members of a tar that may be the image, the one to take first."""
    if cfg.level_scope == "image":
        return RADAR
    return ("sar.npy", *(name for name in RADAR if name != "sar.npy"))


def _row(item: Item) -> list[Any]:
    # Metadata in a tar are read again with the image; a row of a table is stored apart from it.
    return [item.name, dict(item.facts)] if item.facts and not item.source else [item.name]


def _split(item: Item, cfg: ImportConfig) -> str:
    """The split its folder names, else one drawn for its group; part of train may become val."""
    parts = [part.lower() for part in PurePosixPath(item.source or item.name).parts[:-1]]
    named = [_FOLDERS[part] for part in parts if part in _FOLDERS]
    # Public sets also say it in the names of their tars, or in the metadata of a sample.
    if tar := _SPLIT_NAME.fullmatch(PurePosixPath(item.source).name):
        named.append(_FOLDERS[tar[1] or tar[2]])
    if item.facts.get("split") in _FOLDERS:
        named.append(_FOLDERS[item.facts["split"]])
    if named:
        return "val" if named[-1] == "train" and _draw(item, cfg) < cfg.val_of_train else named[-1]
    ends = list(itertools.accumulate(cfg.fractions))[:-1]
    return SPLITS[sum(_draw(item, cfg) >= end for end in ends)]


def _draw(item: Item, cfg: ImportConfig) -> float:
    """A number from 0 to 1 that depends on the seed and the image's group, else its name."""
    group = item.facts.get(cfg.group) if cfg.group is not None else None
    # An image without the entry is a group of its own.
    name = f"{item.source}/{item.name}" if group is None else f"group {group}"
    return int.from_bytes(hashlib.sha256(f"{cfg.seed}:{name}".encode()).digest()[:8]) / 2.0**64


def import_shard(
    shard: int, inputs: Mapping[str, Any], cfg: ImportConfig, *, fingerprints: bool = False
) -> TiledShard:
    """The images of one planned shard as samples, keys `sample_key(shard, position in the plan)`.

    Rejected are `unreadable`, `no_class` (in no folder of `cfg.classes`), `colour`, `too_small`,
    `no_signal` (more than 8 bits, all zero) and `caption_encoding` (a text that is neither UTF-8
    nor marked as UTF-16). Bytes depend on the
    files and `cfg` alone. A transient error of the file system (OSError) is raised, to be retried.
    """
    rejected: Counter[str] = Counter()
    notes: dict[str, str] = {}
    work = _ImportWork(shard, inputs, cfg, fingerprints, rejected, notes)
    return TiledShard(_samples(work), rejected, notes)


@dataclass(frozen=True)
class _ImportWork:
    shard: int
    inputs: Mapping[str, Any]
    cfg: ImportConfig
    fingerprints: bool
    rejected: Counter[str] = field(default_factory=Counter)
    notes: dict[str, str] = field(default_factory=dict)


def _samples(work: _ImportWork) -> Iterator[Sample]:
    items = [Item(work.inputs["source"], name, *rest) for name, *rest in work.inputs["items"]]
    grid = work.cfg.cut == "grid"
    number = 0
    for index, foreign in enumerate(read_foreign(Path(work.cfg.path), items, _kinds(work.cfg))):
        try:
            for made in _made(foreign, work):
                if isinstance(made, str):
                    work.rejected[made] += 1
                    continue
                yield made.keyed(sample_key(work.shard, number if grid else index))
                number += 1
        except DataError as error:
            work.notes["unreadable"] = f"{foreign.item.name}: {error}"
            work.rejected["unreadable"] += 1


def _made(foreign: ForeignSample, work: _ImportWork) -> Iterator[_Tile | str]:
    """Yield the tiles of one image, or the reason why there is none."""
    cfg = work.cfg
    if foreign.undecodable is not None:
        work.notes["caption_encoding"] = f"{foreign.item.name}: {foreign.undecodable}"
        yield "caption_encoding"
        return
    if cfg.classes is not None and class_of_folder(foreign.item.name, cfg.classes) is None:
        yield "no_class"
        return
    whole = gray_image(decoded_image(foreign, cfg.quantity), cfg.colour)
    if whole is None:
        yield "colour"
        return
    cuts = cuts_of(whole.shape, cfg.px, cfg.cut)
    if not cuts:
        yield "too_small"
    turn = _turn(foreign.meta, cfg)
    for cut in cuts:
        pixels = np.ascontiguousarray(turn.apply(whole[cut]))
        # A picture of 8 bits may be black; a measurement that is zero everywhere is none.
        if pixels.dtype != np.uint8 and not pixels.any():
            yield "no_signal"
            continue
        yield _tile(foreign, pixels, _Place(whole.shape, cut, turn), work)


def class_of_folder(name: str, classes: Mapping[str, str]) -> str | None:
    """The class that the folders of an image name, the innermost first; None if they name none."""
    folders = reversed(PurePosixPath(name).parts[:-1])
    return next((folder for folder in folders if folder in classes), None)


def _require_classes(items: Sequence[Item], classes: Mapping[str, str], path: str) -> None:
    """Raise DataError unless some image is of a class."""
    if any(class_of_folder(item.name, classes) for item in items):
        return
    folders = sorted({PurePosixPath(item.name).parent.name or "." for item in items})
    raise DataError(
        f"imported.classes: no image of {path} is below a folder named {', '.join(classes)}; they "
        f"are in {', '.join(folders[:10])}"
    )


def _turn(meta: Mapping[str, Any], cfg: ImportConfig) -> Orientation:
    """The rotation that brings near range to column 0.

    Raises:
        DataError: the image is a tile whose near range is there already, and not as declared.
    """
    if cfg.range_direction is None:
        return Orientation()
    if meta.get("schema") == SAMPLE_SCHEMA and cfg.range_direction != "+col":
        raise DataError(
            f"a tile whose near range is at column 0 already, and imported.range_direction is "
            f"{cfg.range_direction}; set it to null"
        )
    return canonical_orientation(cast("RangeDirection", cfg.range_direction))


@dataclass(frozen=True)
class _Place:
    """Where a tile lies in the image as it was found, and how it was turned."""

    shape: tuple[int, ...]
    cut: Cut
    turn: Orientation


@dataclass(frozen=True)
class _Tile:
    """Members and metadata of a tile before it has a key."""

    members: dict[str, bytes]
    meta: dict[str, Any]

    def keyed(self, key: str) -> Sample:
        """The sample under its key."""
        return Sample(key, {**self.members, "meta.json": encode_json({**self.meta, "key": key})})


def _tile(foreign: ForeignSample, pixels: NDArray[Any], place: _Place, work: _ImportWork) -> _Tile:
    cfg = work.cfg
    law = work.inputs.get("normalisation")
    known = None if law is None else Normalisation.from_json(law)
    members, facts = encoded_pictures(pixels, known)
    layers, dropped = _layers(foreign, place)
    meta = _meta(foreign, cfg, cropped=pixels.size != math.prod(place.shape)) | facts
    meta["split"] = work.inputs["split"]
    meta["origin"] = _origin(foreign, place.cut, dropped)
    if cfg.range_direction is not None:
        meta["range_direction"] = "+col"
    if cfg.range_direction not in (None, "+col"):
        meta["origin"]["range_direction"] = cfg.range_direction
    if work.fingerprints:
        amplitude, valid = np.abs(pixels).astype(np.float32), np.ones(pixels.shape, np.bool_)
        meta["content_digest"] = content_digest(amplitude, valid)
        meta["ground_hash"] = ground_hash(amplitude, valid)
    caption = foreign.caption
    if cfg.classes is not None:
        found = class_of_folder(foreign.item.name, cfg.classes)
        assert found is not None
        meta["class"] = found
        caption = caption or cfg.classes[found]
    if caption is not None:
        members["txt"] = caption.encode()
    return _Tile({**layers, **members}, meta)


def _layers(foreign: ForeignSample, place: _Place) -> tuple[dict[str, bytes], list[str]]:
    """Layers in the pixels of the tile, and the names of those of another size."""
    made: dict[str, bytes] = {}
    for name, data in foreign.layers.items():
        try:
            encoded = encoded_layer(name, data, place.shape, place.cut, place.turn)
        except DataError:
            continue
        made |= {} if encoded is None else {name: encoded}
    return made, sorted(foreign.layers.keys() - made.keys())


def _meta(foreign: ForeignSample, cfg: ImportConfig, cropped: bool) -> dict[str, Any]:
    """Entries of the schema: unknown, stated, declared, or, from shards of this project, as they
    were.
    """
    meta = foreign.meta
    known: dict[str, Any] = dict(UNKNOWN)
    if meta.get("schema") != SAMPLE_SCHEMA:
        stated = public_facts(meta, foreign.layers)
        known |= {k: v for k, v in stated.items() if not (cropped and k == "footprint")}
        known |= {} if foreign.lengths is None else {"caption": dict(foreign.lengths)}
    if meta.get("schema") == SAMPLE_SCHEMA:
        lost = ("window", "affine", "footprint") if cropped else ()
        ours = (*UNKNOWN, "flight_line", "truth", "caption", "geolocation", "plane", "licence")
        known |= {name: meta[name] for name in ours if name in meta and name not in lost}
    declared = ("band", "polarization", "platform", "pixel_m", "plane", "incidence_deg",
                "licence")  # fmt: skip
    known |= {name: getattr(cfg, name) for name in declared if getattr(cfg, name) is not None}
    if cfg.scene_per_folder:
        known["scene_id"] = PurePosixPath(_name(foreign.item)).parent.as_posix()
    if cfg.synthetic or meta.get("synthetic") is True:
        known |= dict.fromkeys(GEOLOCATION)
    return {
        **known,
        "schema": SAMPLE_SCHEMA,
        "synthetic": cfg.synthetic or meta.get("synthetic") is True,
        "calibration": known["calibration"] or "none",
    }


def _origin(
    foreign: ForeignSample, window: tuple[slice, slice], dropped: Sequence[str]
) -> dict[str, Any]:
    rows, cols = window
    return {
        "name": _name(foreign.item),
        "kind": foreign.kind,
        "sha256": hashlib.sha256(foreign.image).hexdigest(),
        "window": [rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start],
        "meta": kept_meta(foreign.meta),
        "left_out": list(dropped),
    }


def _name(item: Item) -> str:
    return f"{item.source}/{item.name}" if item.source else item.name
