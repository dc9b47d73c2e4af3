"""Declarations of a user about files of a folder, for what the files themselves do not state.

`sarhpc.yaml` beside the data:

    defaults: {band: X, polarization: HH}     # for every file
    files:                                    # by name or pattern; later entries override
      "*_slc_*.tif": {range_direction: "-col", incidence_deg: 44.3, calibrated: true}
      "ortho.tif": {role: optical, datetime: 2019-08-01T10:00:00Z}
      "*.mat": {role: skip}
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

import yaml

from hpc.documents import load_yaml
from hpc.errors import ConfigError
from sarhpc.archive.scene import RangeDirection
from sarhpc.archive.stac_checks import is_number

SIDECAR = "sarhpc.yaml"
UNFILLED = "???"
"""Value of an entry that a draft leaves to the user."""

CHOICES = {
    "role": ("sar", "optical", "skip"),
    "range_direction": get_args(RangeDirection),
    "look_side": ("left", "right"),
    "quantity": ("complex", "iq", "amplitude", "intensity", "db"),
    "geometry": ("ground", "slant"),
    "polarization": ("HH", "HV", "VH", "VV"),
    "band": ("P", "L", "S", "C", "X", "Ku", "K", "Ka"),
    "frame": ("scene",),
}


@dataclass(frozen=True)
class Declaration:
    """What can be declared of one file; None is not declared."""

    role: str | None = None
    """`sar`, `optical` or `skip`."""
    id: str | None = None
    """Scene id; otherwise the file's name without suffix."""
    range_direction: str | None = None
    """Image axis along which slant range grows: `+col`, `-col`, `+row`, `-row`."""
    calibrated: bool | None = None
    """Whether the squared (scaled) amplitude is sigma0."""
    scale: float | None = None
    """Multiplier of the amplitude that makes it sqrt(sigma0); implies `calibrated`."""
    quantity: str | None = None
    """`complex`, `iq` (two real bands), `amplitude`, `intensity` or `db`."""
    band: str | None = None
    """Radar band letter."""
    center_frequency_ghz: float | None = None
    """Centre frequency, GHz."""
    polarization: str | None = None
    """`HH`, `HV`, `VH` or `VV`."""
    incidence_deg: float | None = None
    """Incidence angle at the scene centre, degrees."""
    look_side: str | None = None
    """`left` or `right` of the flight direction."""
    flight_line: str | None = None
    """Name of the flight line or orbit; scenes of one line can be kept in one split."""
    looks: float | None = None
    """Equivalent number of looks."""
    datetime: str | None = None
    """Acquisition time, RFC 3339."""
    platform: str | None = None
    """Aircraft or satellite."""
    instrument_mode: str | None = None
    """Acquisition mode, for example `SM` or `spotlight`."""
    product_type: str | None = None
    """For example `SSC`, `MGD`, `GRD`."""
    licence: str | None = None
    """Licence of the scene, an SPDX identifier such as `CC-BY-4.0` where there is one."""
    band_index: int | None = None
    """Band of the file that holds the image, from 1."""
    spacing_m: list[float] | None = None
    """Pixel spacing (row, col) in metres, for a file without geotransform."""
    geometry: str | None = None
    """`ground` or `slant`: the plane in which `spacing_m` is measured."""
    optical: str | None = None
    """Of a SAR file: path of its optical image, relative to the folder."""
    frame: str | None = None
    """Of an optical file without CRS: `scene` if its affine is in its SAR scene's local frame."""


@dataclass(frozen=True)
class Declarations:
    """The declarations of a folder; later ones override earlier ones."""

    defaults: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[tuple[str, Mapping[str, Any]], ...] = ()

    def of(self, name: str) -> Declaration:
        """Declaration of the file `name` (path relative to the folder, with slashes)."""
        merged = dict(self.defaults)
        for pattern, values in self.files:
            if fnmatchcase(name, pattern) or fnmatchcase(name.rpartition("/")[2], pattern):
                merged.update(values)
        return Declaration(**merged)


def read_declarations(
    folder: Path,
    extra: Mapping[str, Any] | None = None,
    extra_name: str = "the declarations given",
) -> Declarations:
    """The declarations in sarhpc.yaml of `folder`, if present, overridden by `extra`.

    `extra` has the structure of the file; messages call it `extra_name`.

    Raises:
        ConfigError: invalid YAML; or names every unknown key and every value of the wrong type.
    """
    path = folder / SIDECAR
    layers: list[tuple[Any, str]] = []
    if path.is_file():
        try:
            layers.append((load_yaml(path.read_text(encoding="utf-8-sig")) or {}, str(path)))
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"{path} is not YAML: {error}; correct it") from error
    if extra is not None:
        layers.append((extra, extra_name))
    defaults: dict[str, Any] = {}
    files: list[tuple[str, Mapping[str, Any]]] = []
    wrong: list[str] = []
    for document, where in layers:
        wrong += _unknown(document, {"defaults", "files"}, where)
        if not isinstance(document, Mapping):
            continue
        defaults |= _checked(document.get("defaults") or {}, f"{where}, defaults", wrong)
        patterns = document.get("files") or {}
        if not isinstance(patterns, Mapping):
            wrong.append(f"{where}: files must map names to values, see docs/scenes.md")
            continue
        for pattern, values in patterns.items():
            files.append((str(pattern), _checked(values or {}, f"{where}, {pattern}", wrong)))
    if wrong:
        raise ConfigError("\n".join(wrong))
    return Declarations(defaults, tuple(files))


def _unknown(document: Any, known: set[str], where: str) -> list[str]:
    """A line for each key that is not known."""
    if not isinstance(document, Mapping):
        return [f"{where}: expected a mapping, found {document!r}; see docs/scenes.md"]
    lines = []
    for key in document:
        if key not in known:
            near = difflib.get_close_matches(str(key), sorted(known), n=3) or sorted(known)
            lines.append(f"{where}: unknown key {key!r}; did you mean {', '.join(near)}?")
    return lines


def _checked(values: Any, where: str, wrong: list[str]) -> dict[str, Any]:
    """The valid entries of `values`; a line for each other one is added to `wrong`."""
    kinds = {item.name: str(item.type) for item in dataclasses.fields(Declaration)}
    wrong += _unknown(values, set(kinds), where)
    checked: dict[str, Any] = {}
    for key, value in values.items() if isinstance(values, Mapping) else ():
        unused = value == UNFILLED and values.get("role") in ("optical", "skip")
        if value is None or key not in kinds or unused:
            continue
        try:
            checked[key] = _value(key, value, kinds[key].removesuffix(" | None"), where)
        except ConfigError as error:
            wrong.append(str(error))
    return checked


def _value(key: str, value: Any, kind: str, where: str) -> Any:
    """`value` as the declared type.

    Raises:
        ConfigError: it is of another type, or none of the choices.
    """
    if value == UNFILLED:
        choices = f" by {', '.join(CHOICES[key])}" if key in CHOICES else ""
        raise ConfigError(f"{where}: {key} is still {UNFILLED}; replace it{choices}")
    if key in CHOICES and value not in CHOICES[key]:
        raise ConfigError(f"{where}: {key} is {value!r}; choose {', '.join(CHOICES[key])}")
    if key == "datetime":
        return _rfc3339(value, where)
    numeric = is_number(value)
    fits = {
        "str": isinstance(value, str),
        "bool": isinstance(value, bool),
        "float": numeric,
        "int": numeric and value == int(value),
        "list[float]": isinstance(value, list | tuple)
        and len(value) == 2
        and all(is_number(item) and item > 0 for item in value),
    }[kind]
    if not fits:
        raise ConfigError(f"{where}: {key} is {value!r}, which is not of type {kind}; correct it")
    return list(value) if kind == "list[float]" else value


def _rfc3339(value: Any, where: str) -> str:
    """RFC 3339 in UTC from text or a time parsed by YAML; without a zone UTC is assumed."""
    try:
        if isinstance(value, datetime):
            moment = value
        elif isinstance(value, date):
            moment = datetime(value.year, value.month, value.day, tzinfo=UTC)
        else:
            moment = datetime.fromisoformat(str(value))
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{where}: datetime {value!r} is not RFC 3339; correct it") from error
