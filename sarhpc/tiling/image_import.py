"""Importing third-party images as tiles: planned into shards, and converted as they are.

What a file does not state stays unknown (`null` in `meta.json`): position, spacing, calibration,
look direction. What it does state is kept unchanged under `origin`.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hpc.errors import DataError
from sarhpc.shards.foreign import (
    ForeignSample,
    Item,
    kept_meta,
    list_foreign,
    read_foreign,
)
from sarhpc.shards.images import decode_array, decode_rgb8, encode_array, encode_gray8, encode_rgb8
from sarhpc.shards.pictures import opened_picture
from sarhpc.shards.radiometry import Normalisation, encode_master
from sarhpc.shards.sample import SAMPLE_SCHEMA, SPLITS, Sample, encode_json, sample_key
from sarhpc.shards.schema import GEOLOCATION, UNKNOWN
from sarhpc.tiling.config import ImportConfig
from sarhpc.tiling.config_checks import check_import
from sarhpc.tiling.fingerprints import content_digest, ground_hash
from sarhpc.tiling.tile import TiledShard

_FOLDERS = {**{name: name for name in SPLITS}, "validation": "val", "valid": "val"}
_GRAY_SPREAD = 16
"""Largest difference between channels, in codes, that JPEG makes of a gray image."""


@dataclass(frozen=True)
class ImportPlan:
    """Inputs of each shard, of one source and one split, and files left out with the reason."""

    shards: tuple[dict[str, Any], ...]
    rejected: Mapping[str, str]


def plan_import(cfg: ImportConfig) -> ImportPlan:
    """The shards into which the images under `cfg.path` are converted.

    Raises:
        ConfigError: fractions that do not sum to 1, or an unknown policy.
        DataError: there are no images.
    """
    check_import(cfg)
    listing = list_foreign(Path(cfg.path), with_facts=cfg.group is not None)
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in listing.items:
        groups.setdefault((item.source, _split(item, cfg)), []).append(item)
    shards = []
    for (source, split), items in sorted(groups.items(), key=lambda pair: pair[0]):
        for first in range(0, len(items), cfg.shard_samples):
            rows = [_row(item) for item in items[first : first + cfg.shard_samples]]
            shards.append({"source": source, "split": split, "items": rows})
    return ImportPlan(tuple(shards), listing.left_out)


def _row(item: Item) -> list[Any]:
    # Metadata in a tar are read again with the image; a row of a table is stored apart from it.
    return [item.name, dict(item.facts)] if item.facts and not item.source else [item.name]


def _split(item: Item, cfg: ImportConfig) -> str:
    """The split its folder names, else one drawn for its group."""
    parts = PurePosixPath(item.source or item.name).parts[:-1]
    named = [_FOLDERS[part] for part in parts if part in _FOLDERS]
    if named:
        return named[-1]
    group = item.facts.get(cfg.group) if cfg.group is not None else None
    # An image without the entry is a group of its own.
    name = f"{item.source}/{item.name}" if group is None else f"group {group}"
    draw = int.from_bytes(hashlib.sha256(f"{cfg.seed}:{name}".encode()).digest()[:8]) / 2.0**64
    ends = list(itertools.accumulate(cfg.fractions))[:-1]
    return SPLITS[sum(draw >= end for end in ends)]


def import_shard(
    shard: int, inputs: Mapping[str, Any], cfg: ImportConfig, *, fingerprints: bool = False
) -> TiledShard:
    """The images of one planned shard as samples, keys `sample_key(shard, position in the plan)`.

    Rejected are `unreadable`, `colour`, `too_small`. Bytes depend on the files and `cfg` alone.
    A transient error of the file system (OSError) is raised, to be retried.
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
    for index, foreign in enumerate(read_foreign(Path(work.cfg.path), items)):
        try:
            made = _sample(foreign, sample_key(work.shard, index), work)
        except DataError as error:
            work.notes["unreadable"] = f"{foreign.item.name}: {error}"
            made = "unreadable"
        if isinstance(made, str):
            work.rejected[made] += 1
        else:
            yield made


def _sample(foreign: ForeignSample, key: str, work: _ImportWork) -> Sample | str:
    cfg = work.cfg
    whole = _gray(_decoded(foreign), cfg.colour)
    if whole is None:
        return "colour"
    window = _centre(whole.shape, cfg.px)
    if window is None:
        return "too_small"
    pixels = np.ascontiguousarray(whole[window])
    members, facts = _pictures(pixels)
    layers, dropped = _layers(foreign, whole.shape, window)
    meta = _meta(foreign.meta, cfg, cropped=pixels.shape != whole.shape) | facts
    meta |= {"key": key, "split": work.inputs["split"]}
    meta["origin"] = _origin(foreign, window, dropped)
    if work.fingerprints:
        amplitude, valid = np.abs(pixels).astype(np.float32), np.ones(pixels.shape, np.bool_)
        meta["content_digest"] = content_digest(amplitude, valid)
        meta["ground_hash"] = ground_hash(amplitude, valid)
    if foreign.caption is not None:
        members["txt"] = foreign.caption.encode()
    return Sample(key, {**layers, **members, "meta.json": encode_json(meta)})


def _decoded(foreign: ForeignSample) -> NDArray[Any]:
    """Pixels (H, W) uint8, uint16 or complex64, or (H, W, 3) uint8."""
    if foreign.kind == "sar.npy":
        return _complex(foreign.image)
    try:
        with opened_picture(foreign.image) as image:
            if image.mode.startswith("I"):
                return _sixteen_bits(np.asarray(image))
            gray = image.mode in ("1", "L", "LA")
            return np.asarray(image.convert("L" if gray else "RGB"))
    except DataError as error:
        raise DataError(f"not a picture that can be read ({error})") from error


def _complex(data: bytes) -> NDArray[np.complex64]:
    field_ = decode_array(data)
    if field_.dtype != np.complex64 or field_.ndim != 2 or not np.isfinite(field_).all():
        raise DataError(f"sar.npy is {field_.dtype} {field_.shape}, not finite complex64 (H, W)")
    return field_


def _sixteen_bits(pixels: NDArray[Any]) -> NDArray[np.uint16]:
    if pixels.min() < 0 or pixels.max() > 65535:
        raise DataError("values beyond 16 bits")
    return pixels.astype(np.uint16)


def _gray(pixels: NDArray[Any], colour: str) -> NDArray[Any] | None:
    """One channel (H, W); None for a coloured image that is rejected."""
    if pixels.ndim == 2:
        return pixels
    spread = pixels.max(axis=2).astype(np.int16) - pixels.min(axis=2)
    if colour == "reject" and int(spread.max()) > _GRAY_SPREAD:
        return None
    # The green channel weighs most; equal channels come out as they are.
    return np.asarray(Image.fromarray(pixels).convert("L"))


def _centre(shape: Sequence[int], px: int | None) -> tuple[slice, slice] | None:
    """The middle `px` rows and columns; None if there are fewer."""
    if px is None:
        return slice(0, shape[0]), slice(0, shape[1])
    if min(shape) < px:
        return None
    row, col = (shape[0] - px) // 2, (shape[1] - px) // 2
    return slice(row, row + px), slice(col, col + px)


def _pictures(pixels: NDArray[Any]) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Members of the image, and how its 8-bit picture was derived from more bits."""
    if pixels.dtype == np.uint8:
        return {"sar.png": encode_gray8(pixels)}, {}
    amplitude = np.abs(pixels).astype(np.float32)
    mu, sigma = float(amplitude.mean(dtype=np.float64)), float(amplitude.std(dtype=np.float64))
    law = Normalisation("mu+3sigma", mu, sigma, mu + 3 * sigma)
    codes, scale = (pixels, 1.0) if pixels.dtype == np.uint16 else encode_master(amplitude)
    members = {"sar.png": encode_gray8(law.encode(amplitude)), "sar16.npy": encode_array(codes)}
    return members, {"normalisation": law.to_json(), "master_scale": scale}


def _layers(
    foreign: ForeignSample, shape: Sequence[int], window: tuple[slice, slice]
) -> tuple[dict[str, bytes], list[str]]:
    """Layers in the pixels of the image, and the names of those of another size."""
    made: dict[str, bytes] = {}
    for name, data in foreign.layers.items():
        try:
            made |= {name: encoded} if (encoded := _layer(name, data, shape, window)) else {}
        except DataError:
            continue
    return made, sorted(foreign.layers.keys() - made.keys())


def _layer(
    name: str, data: bytes, shape: Sequence[int], window: tuple[slice, slice]
) -> bytes | None:
    if name == "optic.png":
        rgb = decode_rgb8(data)
        return encode_rgb8(np.ascontiguousarray(rgb[window])) if rgb.shape[:2] == shape else None
    array = _complex(data) if name == "sar.npy" else decode_array(data)
    if array.shape[-2:] != tuple(shape) or (name == "landcover.npy" and array.dtype != np.uint8):
        return None
    return encode_array(np.ascontiguousarray(array[..., *window]))


def _meta(meta: Mapping[str, Any], cfg: ImportConfig, cropped: bool) -> dict[str, Any]:
    """Entries of the schema: unknown, declared, or, from shards of this project, as they were."""
    known: dict[str, Any] = dict(UNKNOWN)
    if meta.get("schema") == SAMPLE_SCHEMA:
        lost = ("window", "affine", "footprint") if cropped else ()
        ours = (*UNKNOWN, "flight_line", "truth", "caption", "geolocation", "plane", "licence")
        known |= {name: meta[name] for name in ours if name in meta and name not in lost}
    declared = ("band", "polarization", "platform", "pixel_m", "plane", "incidence_deg",
                "range_direction", "licence")  # fmt: skip
    known |= {name: getattr(cfg, name) for name in declared if getattr(cfg, name) is not None}
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
    item = foreign.item
    rows, cols = window
    return {
        "name": f"{item.source}/{item.name}" if item.source else item.name,
        "kind": foreign.kind,
        "sha256": hashlib.sha256(foreign.image).hexdigest(),
        "window": [rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start],
        "meta": kept_meta(foreign.meta),
        "left_out": list(dropped),
    }
