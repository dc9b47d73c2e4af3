"""The sample schema: which members and which metadata a sample of this project carries.

`meta.json` says `synthetic`: false for a tile cut from a scene, true for a generated image, and has
`origin` for an image cut by a third party. They differ in what is required, and a generated image
may not carry a geolocation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.documents import parse_json
from hpc.errors import DataError
from sarhpc.shards.images import decode_array, decode_gray8, decode_rgb8
from sarhpc.shards.sample import SAMPLE_SCHEMA, SPLITS, Sample

_TILE_META = {
    "schema": "text",
    "key": "text",
    "synthetic": "flag",
    "scene_id": "text",
    "split": "text",
    "datetime": "text?",
    "optic_datetime": "text?",
    "optic_delta_days": "number?",
    "band": "text?",
    "polarization": "text?",
    "platform": "text?",
    "incidence_deg": "number?",
    "look_side": "text?",
    "range_direction": "text",
    "window": "list 4",
    "affine": "list 6",
    "crs": "text?",
    "footprint": "list?",
    "pixel_m": "number",
    "native_pixel_m": "list 2",
    "enl": "number",
    "resampling": "text",
    "valid_fraction": "number",
    "saturated_fraction": "number",
    "normalisation": "object",
    "master_scale": "number",
    "calibration": "text",
}
_GENERATED_META = {
    "schema": "text",
    "key": "text",
    "synthetic": "flag",
    "prompt": "text",
    "negative_prompt": "text",
    "seed": "integer",
    "steps": "integer",
    "guidance": "number",
    "scheduler": "text",
    "batch": "integer",
    "threads": "integer",
    "model_sha": "text",
    "config_fingerprint": "text",
    "generator": "text",
    "pixel_m": "number?",
    "range_direction": "text?",
}
_GENERATED_PIXELS = {
    "plane": "text?",
    "look_side": "text?",
    "band": "text?",
    "polarization": "text?",
    "incidence_deg": "number?",
    "normalisation": "object?",
    "calibration": "text?",
    "master_law": "text",
    "master_floor": "number",
    "contract_sha": "text?",
}
"""Of a generated image, where its model has a contract; earlier images lack them."""
_PAINTED_META = {
    name: kind
    for name, kind in _GENERATED_META.items()
    if name not in ("pixel_m", "range_direction")
}
"""Of a generated image that shows no radar."""
_IMPORTED_META = {
    name: kind
    if name in ("schema", "key", "synthetic", "split", "calibration")
    else kind.rstrip("?") + "?"
    for name, kind in _TILE_META.items()
} | {"origin": "object"}
"""Of a third-party image (it has `origin`): nearly everything may be unknown."""

UNKNOWN: Mapping[str, None] = {
    name: None for name in _TILE_META if name not in ("schema", "key", "synthetic", "split")
}
"""The entries of a tile about which a foreign image may say nothing."""

_CHOICES = {
    "schema": (SAMPLE_SCHEMA,),
    "split": SPLITS,
    "range_direction": ("+col",),
    "look_side": ("left", "right", None),
    "resampling": ("fft", "multilook", "none"),
    "calibration": ("sigma0", "none"),
    "plane": ("ground", "slant"),
}
GEOLOCATION = ("crs", "affine", "footprint", "bbox", "bbox_llh", "bbox_ecf", "geometry")
_TILE_MEMBERS = ("sar.png", "sar16.npy", "meta.json")
_IMPORTED_MEMBERS = ("sar.png", "meta.json")
_GENERATED_MEMBERS = ("sar.png", "txt", "meta.json")
_PAINTED_MEMBERS = ("optic.png", "txt", "meta.json")


def validate_sample(sample: Sample) -> None:
    """Raise DataError unless the sample conforms to the schema: key, members, pixels, metadata.

    Members beyond those of the schema are allowed.

    Raises:
        DataError: it does not; the message lists everything that is wrong.
    """
    problems = _member_problems(sample)
    meta = _read_meta(sample.members.get("meta.json", b"{}"), problems)
    generated = meta.get("synthetic") is True
    required, schema = _expected(sample, meta, generated)
    problems += [f"no member {name}" for name in required if name not in sample.members]
    problems += _meta_problems(meta, schema)
    if meta.get("key", sample.key) != sample.key:
        problems.append(f"meta.json says key {meta['key']}")
    if generated:
        problems += [
            f"geolocation `{name}` in a synthetic image"
            for name in GEOLOCATION
            if meta.get(name) is not None or (name in meta and "origin" not in meta)
        ]
    if problems:
        raise DataError(f"sample {sample.key} breaks {SAMPLE_SCHEMA}: " + "; ".join(problems) + ".")


def _expected(
    sample: Sample, meta: Mapping[str, Any], generated: bool
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Members and metadata that a sample of this kind has."""
    if "origin" in meta:
        return _IMPORTED_MEMBERS, _IMPORTED_META
    if generated and "sar.png" not in sample.members and "optic.png" in sample.members:
        return _PAINTED_MEMBERS, _PAINTED_META
    if generated:
        known = {name: kind for name, kind in _GENERATED_PIXELS.items() if name in meta}
        master = {"master_law": "text"} if "sar16.npy" in sample.members else {}
        return _GENERATED_MEMBERS, {**_GENERATED_META, **known, **master}
    return _TILE_MEMBERS, _TILE_META


def _member_problems(sample: Sample) -> list[str]:
    problems = []
    if not (sample.key.isascii() and sample.key.isdigit() and len(sample.key) == 11):
        problems.append("the key is not eleven digits")
    shapes: dict[str, tuple[int, ...]] = {}
    for name, decode in _DECODERS.items():
        if name in sample.members:
            try:
                shapes[name] = decode(sample.members[name]).shape
            except DataError as error:
                problems.append(f"{name}: {error}")
    expected = shapes.get("sar.png")
    problems += [
        f"{name} is {shape}, sar.png {expected}"
        for name, shape in shapes.items()
        if expected is not None and _image_shape(name, shape) != expected
    ]
    if not _is_text(sample.members.get("txt", b"-")):
        problems.append("txt is empty or no UTF-8 text")
    return problems


def _is_text(data: bytes) -> bool:
    try:
        return bool(data.decode().strip()) and b"\0" not in data
    except UnicodeDecodeError:
        return False


def _typed(dtype: type[np.generic]) -> Callable[[bytes], NDArray[Any]]:
    def decode(data: bytes) -> NDArray[Any]:
        """The array in `data`, of this type only."""
        array = decode_array(data)
        if array.dtype != dtype:
            raise DataError(f"dtype {array.dtype} instead of {np.dtype(dtype)}")
        return array

    return decode


_DECODERS: Mapping[str, Callable[[bytes], NDArray[Any]]] = {
    "sar.png": decode_gray8,
    "sar16.npy": _typed(np.uint16),
    "sar.npy": _typed(np.complex64),
    "optic.png": decode_rgb8,
    "landcover.npy": _typed(np.uint8),
    "edges.png": decode_gray8,
    "segmentation.png": decode_rgb8,
    "coarse.png": decode_gray8,
    "other.png": decode_gray8,
}


def _image_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if name in ("optic.png", "segmentation.png"):
        return shape[:2]
    if name == "landcover.npy":
        return shape[1:] if len(shape) == 3 and shape[0] == 2 else shape
    return shape


def _read_meta(data: bytes, problems: list[str]) -> dict[str, Any]:
    try:
        meta = parse_json(data)
    except ValueError as error:
        problems.append(f"meta.json is no JSON ({error})")
        return {}
    if not isinstance(meta, dict):
        problems.append("meta.json is no object")
        return {}
    return meta


def _meta_problems(meta: Mapping[str, Any], schema: Mapping[str, str]) -> list[str]:
    problems = []
    for name, kind in schema.items():
        if name not in meta:
            problems.append(f"meta.json lacks `{name}`")
        elif not _is_kind(meta[name], kind):
            problems.append(f"`{name}` is {meta[name]!r}, not of kind {kind}")
        elif meta[name] is not None and meta[name] not in _CHOICES.get(name, (meta[name],)):
            problems.append(f"`{name}` is {meta[name]!r}, not one of {_CHOICES[name]}")
    return problems


def _is_kind(value: Any, kind: str) -> bool:
    """Whether a JSON value is of a kind: `?` allows null, `list 4` a list of four numbers."""
    if kind.endswith("?"):
        return value is None or _is_kind(value, kind[:-1])
    if kind.startswith("list "):
        numbers = isinstance(value, list) and all(_is_kind(item, "number") for item in value)
        return numbers and len(value) == int(kind[5:])
    if isinstance(value, bool):
        return kind == "flag"
    return isinstance(value, _JSON_TYPES[kind])


_JSON_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "text": str,
    "integer": int,
    "number": (int, float),
    "list": list,
    "object": dict,
    "flag": bool,
}
