"""What a STAC item must hold to be read: id, assets, bbox, and properties of the right kind.

Items of other writers pass as they are; a property that nothing here reads may hold anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpc.errors import DataError

_LARGEST = 1e12


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number of a size that arithmetic can take."""
    return type(value) in (int, float) and abs(value) < _LARGEST


def _is_positive(value: Any) -> bool:
    return is_number(value) and value > 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_count(value: Any) -> bool:
    return _is_positive(value) and value == int(value)


def _is_spacing(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_positive, value))


def _is_bbox(value: Any) -> bool:
    return isinstance(value, list) and len(value) in (4, 6) and all(map(is_number, value))


def _one_of(*choices: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in choices


_PROPERTIES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        (
            "datetime", "start_datetime", "end_datetime", "platform", "license",
            "sar:instrument_mode",
            "sar:frequency_band", "sar:product_type", "product:type", "sarhpc:flight_line",
            "sarhpc:layer", "sarhpc:range_direction", "sarhpc:optical_datetime",
            "sarhpc:optical_frame",
        ),
        (_is_text, "text"),
    ),
    **dict.fromkeys(
        (
            "sar:looks_range", "sar:looks_azimuth", "sar:looks_equivalent_number",
            "sar:center_frequency", "sarhpc:scale",
        ),
        (_is_positive, "a number above 0"),
    ),
    "view:incidence_angle": (is_number, "a number"),
    "eo:cloud_cover": (is_number, "a number"),
    "sar:polarizations": (_is_texts, "a list of texts"),
    "sarhpc:band_index": (_is_count, "a number from 1"),
    "sarhpc:spacing_m": (_is_spacing, "two numbers above 0"),
    "sar:observation_direction": (_one_of("left", "right"), "left or right"),
    "sarhpc:geometry": (_one_of("ground", "slant"), "ground or slant"),
    "sarhpc:calibration": (_one_of("sigma0", "none"), "sigma0 or none"),
    "sarhpc:quantity": (
        _one_of("complex", "iq", "amplitude", "intensity", "db"),
        "complex, iq, amplitude, intensity or db",
    ),
}  # fmt: skip


def check_item(item: Mapping[str, Any], path: Path) -> None:
    """Raise DataError unless the STAC item in the file `path` can be read.

    Raises:
        DataError: the message says what is missing or of another kind.
    """
    properties = item.get("properties")
    parts = (
        ("id", isinstance(item.get("id"), str), "text"),
        ("properties", isinstance(properties, dict), "an object"),
        ("bbox", item.get("bbox") is None or _is_bbox(item["bbox"]), "four or six numbers"),
    )
    for name, sound, kind in parts:
        if not sound:
            raise DataError(_wrong(path, name, item.get(name), kind))
    for name, (is_kind, kind) in _PROPERTIES.items():
        value = (properties or {}).get(name)
        if value is not None and not is_kind(value):
            raise DataError(_wrong(path, name, value, kind))


def _wrong(path: Path, name: str, value: Any, kind: str) -> str:
    return f"{path} is not a valid STAC item: {name} is {value!r:.60}, not {kind}; correct it"
