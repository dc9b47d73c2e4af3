"""The contract of a model: what the pixels of its images mean, as far as its tiles say so.

`contract.json` lies in the folder of an exported model. It is derived from the metadata of the
tiles that the model was trained on. What differs among them is a range or a list, and what one of
them does not say is null: nothing is assumed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.documents import read_json
from hpc.errors import DataError
from sarhpc.shards.radiometry import LINEAR_MODES, MODES, Normalisation, decode_levels
from sarhpc.shards.sample import encode_json

CONTRACT_SCHEMA = "sarhpc.contract/1"
CONTRACT_FILE = "contract.json"

Span = tuple[float, float]
"""Least and greatest value over the tiles; equal where all have one value."""


@dataclass(frozen=True)
class LawSpan:
    """The normalisation of the 8-bit picture, with the range of each of its constants."""

    mode: str
    """One of `radiometry.MODES`."""
    top: Span
    """Amplitude of code 255."""
    low: Span | None = None
    """Amplitude of code 0; None is zero, as all linear modes have it."""
    gain: Span | None = None
    """Of `log1p`: factor on A^2 within the logarithm."""

    @property
    def law(self) -> Normalisation | None:
        """The normalisation, where all tiles have the same constants."""
        ends = (self.top, self.low, self.gain)
        if any(span is not None and span[0] != span[1] for span in ends):
            return None
        low, gain = (None if span is None else span[0] for span in (self.low, self.gain))
        return Normalisation(self.mode, None, None, self.top[0], low, gain)


@dataclass(frozen=True)
class PixelContract:
    """What a pixel of a model's images means; None is unknown."""

    normalisation: LawSpan | None = None
    """The law of the 8-bit picture; None where tiles have none, or of different modes."""
    calibration: str | None = None
    """`sigma0`: squared amplitude is sigma0; `none`: of unknown scale; None where tiles differ."""
    pixel_m: Span | None = None
    """Spacing of pixels, m."""
    plane: str | None = None
    """Plane of the spacing along range: `ground` or `slant`."""
    range_direction: str | None = None
    """`+col` where near range is at column 0."""
    look_side: tuple[str, ...] | None = None
    """Sides to which the sensors look: `left`, `right`."""
    band: tuple[str, ...] | None = None
    """Radar bands."""
    polarization: tuple[str, ...] | None = None
    """Polarisations."""
    incidence_deg: Span | None = None
    """Angles of incidence, degrees."""
    token: str | None = None
    """Activation phrase that the training texts begin with."""
    template: str | None = None
    """Pattern of the training texts, with `{token}` and `{caption}`."""
    licence: tuple[str, ...] | None = None
    """Licences of the scenes."""
    archive: str | None = None
    """SHA-256 over the scenes (id, time, band, polarisation)."""
    scenes: int | None = None
    """Number of scenes."""
    tiles: int = 0
    """Number of tiles that it was derived from."""
    level_floor: float | None = None
    """Least level in the 16-bit masters of images, which stands for whatever is darker; None is 0,
    as in earlier contracts."""

    @property
    def law(self) -> Normalisation | None:
        """The normalisation by which levels become amplitude; None where that is unknown.

        Of linear modes whose constants differ by scene, amplitude in units of that of code 255.
        """
        span = self.normalisation
        if span is None or span.law is not None:
            return None if span is None else span.law
        return Normalisation(span.mode, None, None, 1.0) if span.mode in LINEAR_MODES else None

    @property
    def is_calibrated(self) -> bool:
        """Whether levels can be turned into sigma0."""
        span = self.normalisation
        return self.calibration == "sigma0" and span is not None and span.law is not None

    @property
    def sha256(self) -> str:
        """Digest of the contract."""
        return hashlib.sha256(encode_json(self.to_json())).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The contract as plain JSON values, as written to `contract.json`."""
        entries = {"schema": CONTRACT_SCHEMA, **_plain(asdict(self))}
        # Its digest stands in images: that of an earlier contract must stay.
        if self.level_floor is None:
            del entries["level_floor"]
        return entries

    @classmethod
    def from_json(cls, value: Any, source: str = CONTRACT_FILE) -> PixelContract:
        """The contract in a JSON document; entries of later versions are passed over.

        Raises:
            DataError: it is no contract, of a schema that this version does not read, or an entry
                is not of its kind.
        """
        if not isinstance(value, dict) or not isinstance(value.get("schema"), str):
            raise DataError(
                f"{source} is no contract of a model ({CONTRACT_SCHEMA}); write it again"
            )
        if value["schema"] != CONTRACT_SCHEMA:
            raise DataError(
                f"{source} is of schema {value['schema']!r}, this version reads {CONTRACT_SCHEMA}: "
                "use the version of sarhpc that wrote it, or write it again"
            )
        known = {field.name for field in fields(cls)} & value.keys()
        try:
            return cls(**{name: _read(name, value[name]) for name in known})
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{source} is damaged ({error}); write it again") from error


def read_contract(folder: Path) -> PixelContract | None:
    """The contract of the model in `folder`; None where it has none.

    It is in the folder, or beside it in `FOLDER.contract.json` for a model that came without one.

    Raises:
        DataError: it cannot be read; the message names the file.
    """
    for path in (folder / CONTRACT_FILE, sidecar(folder)):
        if path.is_file():
            try:
                return PixelContract.from_json(read_json(path), str(path))
            except (OSError, ValueError) as error:
                raise DataError(f"{path} cannot be read ({error}); write it again") from error
    return None


def sidecar(folder: Path) -> Path:
    """Where the contract of a model lies whose folder must not change."""
    return folder.with_name(f"{folder.name}.{CONTRACT_FILE}")


def sigma0_db(master: NDArray[np.uint16], contract: PixelContract) -> NDArray[np.float32]:
    """sigma0 (H, W) in dB of the 16-bit master of a generated image.

    Under `db` every value is within half a step, (top - low) / 131070 dB. The least code also
    stands for whatever is darker; without a `level_floor` sigma0 of zero amplitude is -inf.

    Raises:
        DataError: the contract does not say how a code becomes sigma0.
    """
    law = contract.law
    if not contract.is_calibrated or law is None:
        raise DataError(
            "sigma0 is not known: the contract has calibration "
            f"{contract.calibration!r} and normalisation {_law_text(contract)}; train on tiles of "
            "calibrated scenes with tile.normalisation=db and tile.db_scope=archive"
        )
    amplitude = law.amplitudes(decode_levels(master)).astype(np.float64)
    with np.errstate(divide="ignore"):
        return (20 * np.log10(amplitude)).astype(np.float32)


def only(values: Span | tuple[str, ...] | None) -> Any:
    """The value that all tiles share; None where they differ or do not say."""
    return values[0] if values and all(value == values[0] for value in values) else None


def differences(one: PixelContract, other: PixelContract) -> list[str]:
    """Lines `name: value against value` for whatever makes pixels mean something else.

    What either of them does not know is no difference, nor are ranges that overlap, lists that
    share a value, and constants of one mode that follow each scene.
    """
    names = ("normalisation", "calibration", "pixel_m", "plane", "range_direction", "band",
             "polarization")  # fmt: skip
    pairs = ((name, getattr(one, name), getattr(other, name)) for name in names)
    return [
        f"{name}: {_text(ours)} against {_text(theirs)}"
        for name, ours, theirs in pairs
        if ours is not None and theirs is not None and not _compatible(ours, theirs)
    ]


def _compatible(ours: Any, theirs: Any) -> bool:
    """Whether two known entries of one name may stand for the same thing."""
    if isinstance(ours, LawSpan):
        per_scene = None in (ours.law, theirs.law)
        return bool(ours.mode == theirs.mode and (per_scene or ours.law == theirs.law))
    if not isinstance(ours, tuple):
        return bool(ours == theirs)
    if isinstance(ours[0], str):
        return not set(ours).isdisjoint(theirs)
    slack = 1 + _SAME_SPACING
    return bool(ours[0] <= theirs[1] * slack and theirs[0] <= ours[1] * slack)


_SAME_SPACING = 1e-3
"""Relative difference up to which spacings are the same: scenes round theirs."""


def describe(contract: PixelContract) -> dict[str, str]:
    """The contract as rows of a card; `unknown` where it says nothing."""
    units = {"pixel_m": " m", "incidence_deg": " degrees"}
    rows = {f.name: getattr(contract, f.name) for f in fields(contract)}
    if contract.level_floor is None:
        del rows["level_floor"]
    return {
        name.removesuffix("_m").removesuffix("_deg").replace("_", " "): (
            "unknown" if value is None else _text(value) + units.get(name, "")
        )
        for name, value in rows.items()
    }


def _law_text(contract: PixelContract) -> str:
    return "unknown" if contract.normalisation is None else _text(contract.normalisation)


def _text(value: Any) -> str:
    if isinstance(value, LawSpan):
        return _span_text(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple):
        values = sorted(set(value))
        if all(isinstance(each, float) for each in values):
            return " to ".join(f"{each:.9g}" for each in values)
        return ", ".join(values)
    return str(value)


def _span_text(law: LawSpan) -> str:
    named = {"low": law.low, "top": law.top, "gain": law.gain}
    parts = []
    for name, span in named.items():
        if span is not None and name != "gain" and min(span) > 0:
            levels = sorted({20 * math.log10(end) for end in span})
            parts.append(f"{name} {' to '.join(f'{level:.2f}' for level in levels)} dB")
        elif span is not None:
            parts.append(f"{name} {_text(span)}")
    return f"{law.mode}, {', '.join(parts)}"


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _plain(value)
        if isinstance(value, dict)
        else list(value)
        if isinstance(value, tuple)
        else value
        for name, value in values.items()
    }


_SPANS = ("pixel_m", "incidence_deg")
_LISTS = ("look_side", "band", "polarization", "licence")
_COUNTS = ("scenes", "tiles")


def _read(name: str, value: Any) -> Any:
    """An entry of a contract, of its kind.

    Raises:
        ValueError, TypeError: it is of another.
    """
    if value is None and name != "tiles":
        return None
    if name == "normalisation":
        return _read_law(value)
    if name in _SPANS:
        return _read_span(name, value)
    if name == "level_floor":
        if not _is_positive(value) or value >= 1:
            raise ValueError(f"level_floor is {value!r:.60}, not a level below 1")
        return float(value)
    if name in _LISTS:
        if not (isinstance(value, list) and value and all(isinstance(v, str) for v in value)):
            raise ValueError(f"{name} is {value!r:.60}, not a list of texts")
        return tuple(value)
    kind = int if name in _COUNTS else str
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r:.60}, not of type {kind.__name__}")
    return value


def _read_law(value: Any) -> LawSpan:
    if not isinstance(value, dict) or value.get("mode") not in MODES:
        raise ValueError(f"normalisation is {value!r:.80}, its mode none of {', '.join(MODES)}")
    spans = {
        name: _read_span(f"normalisation.{name}", value[name])
        for name in ("top", "low", "gain")
        if value.get(name) is not None
    }
    if "top" not in spans:
        raise ValueError("normalisation has no `top`")
    if spans.get("low", (-1.0,))[0] >= spans["top"][1]:
        raise ValueError("normalisation.low is not below normalisation.top")
    return LawSpan(value["mode"], **spans)


def _read_span(name: str, value: Any) -> Span:
    numbers = isinstance(value, list) and len(value) == 2
    if not numbers or not all(_is_positive(end) for end in value) or value[0] > value[1]:
        raise ValueError(f"{name} is {value!r:.60}, not [least, greatest]")
    return float(value[0]), float(value[1])


def _is_positive(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0
