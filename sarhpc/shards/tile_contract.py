"""The contract that tiles imply, from their metadata alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.errors import DataError
from sarhpc.shards.contract import LawSpan, PixelContract, Span
from sarhpc.shards.radiometry import MODES, level_floor
from sarhpc.shards.reader import read_member
from sarhpc.shards.sample import decode_meta, encode_json


def contract_of_shards(shards: Iterable[Path]) -> PixelContract:
    """The contract of the tiles in `shards`, read one after the other.

    Raises:
        DataError: a shard is damaged, or there are no tiles.
    """
    return contract_of_tiles(_metadata(shards))


def contract_of_tiles(metas: Iterable[Mapping[str, Any]]) -> PixelContract:
    """The contract of the tiles with these metadata; memory holds distinct values only.

    Raises:
        DataError: there are no tiles.
    """
    seen = _Seen()
    for meta in metas:
        seen.add(meta)
    if seen.tiles == 0:
        raise DataError("no tiles to derive a contract from: the shards are empty")
    return seen.contract()


def _metadata(shards: Iterable[Path]) -> Iterator[Mapping[str, Any]]:
    for path in shards:
        for key, data in read_member(path, "meta.json"):
            yield decode_meta(data, key, path)


_TEXTS = ("band", "polarization", "look_side", "licence")
_SINGLE = ("calibration", "range_direction", "plane", "token", "template")
_NUMBERS = ("pixel_m", "incidence_deg")


@dataclass
class _Seen:
    """Values of the tiles seen so far; None among them is a tile that does not say."""

    tiles: int = 0
    texts: dict[str, set[str | None]] = field(default_factory=dict)
    spans: dict[str, Span | None] = field(default_factory=dict)
    modes: set[str | None] = field(default_factory=set)
    scenes: set[tuple[str, ...] | None] = field(default_factory=set)

    def add(self, meta: Mapping[str, Any]) -> None:
        """Add the metadata of one tile."""
        template = meta.get("caption_template")
        template = template if isinstance(template, Mapping) else {}
        said = {
            **meta,
            "plane": meta.get("plane", None if "origin" in meta else "ground"),
            "token": template.get("token"),
            "template": template.get("pattern"),
        }
        for name in (*_TEXTS, *_SINGLE):
            self.texts.setdefault(name, set()).add(_text(said.get(name)))
        for name in _NUMBERS:
            self._widen(name, said.get(name))
        law = meta.get("normalisation")
        law = law if isinstance(law, Mapping) else {}
        mode = law.get("mode")
        self.modes.add(mode if mode in MODES else None)
        for name in ("top", "low", "gain"):
            self._widen(name, law.get(name))
        scene = [_text(meta.get(n)) for n in ("scene_id", "datetime", "band", "polarization")]
        self.scenes.add(tuple(each or "" for each in scene) if scene[0] else None)
        self.tiles += 1

    def _widen(self, name: str, value: Any) -> None:
        """Widen the range of a number by the value of one more tile; unknown once is unknown."""
        before = self.spans.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            self.spans[name] = None
        elif self.tiles == 0:
            self.spans[name] = (float(value), float(value))
        elif before is not None:
            self.spans[name] = (min(before[0], float(value)), max(before[1], float(value)))

    def contract(self) -> PixelContract:
        """The contract of all tiles that were added."""
        scenes = None if None in self.scenes else sorted(filter(None, self.scenes))
        law = self._law()
        return PixelContract(
            normalisation=law,
            calibration=self._single("calibration"),
            pixel_m=self.spans["pixel_m"],
            plane=self._single("plane"),
            range_direction=self._single("range_direction"),
            look_side=self._all("look_side"),
            band=self._all("band"),
            polarization=self._all("polarization"),
            incidence_deg=self.spans["incidence_deg"],
            token=self._single("token"),
            template=self._single("template"),
            licence=self._all("licence"),
            archive=None if scenes is None else hashlib.sha256(encode_json(scenes)).hexdigest(),
            scenes=None if scenes is None else len(scenes),
            tiles=self.tiles,
            level_floor=None if law is None else level_floor(law.mode),
        )

    def _all(self, name: str) -> tuple[str, ...] | None:
        """The values of a text in order; None where a tile says none."""
        values = self.texts[name]
        return None if None in values else tuple(sorted(filter(None, values)))

    def _single(self, name: str) -> str | None:
        """The value of a text that all tiles share."""
        values = self._all(name)
        return values[0] if values and len(values) == 1 else None

    def _law(self) -> LawSpan | None:
        """The normalisation; None where tiles have none, or of different modes."""
        top = self.spans["top"]
        if len(self.modes) != 1 or top is None:
            return None
        [mode] = self.modes
        return None if mode is None else LawSpan(mode, top, self.spans["low"], self.spans["gain"])


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
