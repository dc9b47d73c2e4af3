"""Survey of a set of shards: metadata of every sample, pixels of an even subset of them.

Shards are read one after the other, and of each only headers, `meta.json` and `txt`; memory does
not grow with the number of samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hpc.documents import parse_json
from hpc.errors import DataError
from sarhpc.evaluation.tally import EvenSample, Histogram, Tally, Warnings
from sarhpc.shards.reader import ShardIndex
from sarhpc.shards.sample import SAMPLE_SCHEMA, SPLITS, Sample
from sarhpc.shards.schema import GEOLOCATION
from sarhpc.shards.tar import Member, read_exactly

FACTS = (
    "split", "band", "polarization", "platform", "look_side", "calibration", "resampling",
    "pixel_m", "caption_model", "caption_fallback", "scheduler", "steps", "guidance", "generator",
    "model_sha",
)  # fmt: skip
"""Entries of `meta.json` whose values are counted."""

QUANTITIES: Mapping[str, Sequence[float]] = {
    "incidence_deg": [float(x) for x in range(91)],
    "enl": np.geomspace(0.5, 200.0, 53).tolist(),
    "noise_floor_db": [float(x) for x in range(-50, 1)],
    "valid_fraction": np.linspace(0.0, 1.0, 51).tolist(),
    "saturated_fraction": np.linspace(0.0, 0.1, 51).tolist(),
    "words": [float(x) for x in range(82)],
}
"""Quantity -> edges of its histogram; `words` are those of the caption."""

_LARGEST = 1e300
PLACES_KEPT = 1500
CAPTIONS_KEPT = 20_000
SCENES_KEPT = 10_000


@dataclass(frozen=True)
class ShardRef:
    """A shard to survey, with the size its record states, where there is one."""

    path: Path
    samples: int | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class SampleRef:
    """Location of a selected sample."""

    path: Path
    key: str
    members: Mapping[str, Member]

    def read(self) -> Sample:
        """The sample with all its members."""
        with self.path.open("rb") as file:
            members = {n: read_exactly(file, at, self.path) for n, at in self.members.items()}
        return Sample(self.key, members, self.path)


@dataclass(frozen=True)
class Outline:
    """A tile on the Earth."""

    key: str
    split: str
    scene: str
    points: tuple[tuple[float, float], ...]
    """Longitude and latitude, degrees."""


@dataclass
class SetSurvey:
    """What was found in one set of shards."""

    name: str
    picked: EvenSample[SampleRef]
    """Samples whose pixels are to be measured."""
    shards: int = 0
    bytes: int = 0
    samples: int = 0
    members: Tally = field(default_factory=Tally)
    facts: dict[str, Tally] = field(default_factory=dict)
    spreads: dict[str, Histogram] = field(default_factory=dict)
    scenes: Tally = field(default_factory=lambda: Tally(SCENES_KEPT))
    classes: Tally = field(default_factory=Tally)
    tokens: Tally = field(default_factory=Tally)
    captions: Tally = field(default_factory=lambda: Tally(CAPTIONS_KEPT))
    outlines: EvenSample[Outline] = field(default_factory=lambda: EvenSample(PLACES_KEPT))
    days: tuple[str, str] | None = None
    """First and last day of acquisition."""
    synthetic: int = 0
    warnings: Warnings = field(default_factory=Warnings)


ClassOf = Callable[[dict[str, Any]], str | None]


def survey_set(
    name: str, shards: Iterable[ShardRef], class_of: ClassOf, pixels: int = 256
) -> SetSurvey:
    """Survey of the shards of one set; a shard that cannot be read becomes a warning.

    Args:
        name: of the set.
        shards: its shards, in order.
        class_of: land cover of a sample by its metadata, or None.
        pixels: how many samples to select for measuring their pixels, at least.
    """
    survey = SetSurvey(name, EvenSample(pixels))
    stems: set[str] = set()
    for shard in shards:
        if shard.path.stem in stems and shard.path.stem.isdigit():
            survey.warnings.add("shard number used twice, so keys repeat", str(shard.path))
        stems.add(shard.path.stem)
        try:
            index = ShardIndex.scan(shard.path)
            _survey_shard(survey, shard, index, class_of)
        except DataError as error:
            survey.warnings.add("shard cannot be read", str(error))
    if 0 < survey.synthetic < survey.samples:
        survey.warnings.add("synthetic and real samples are mixed", f"{survey.synthetic} synthetic")
    return survey


def _survey_shard(survey: SetSurvey, shard: ShardRef, index: ShardIndex, class_of: ClassOf) -> None:
    size = shard.path.stat().st_size
    survey.shards += 1
    survey.bytes += size
    if shard.bytes is not None and shard.bytes != size:
        survey.warnings.add(
            "shard differs in size from its record",
            f"{shard.path.name} {size:,} instead of {shard.bytes:,} bytes",
        )
    if shard.samples is not None and shard.samples != len(index):
        survey.warnings.add(
            "shard differs in samples from its record",
            f"{shard.path.name} {len(index)} instead of {shard.samples}",
        )
    if len(index) == 0:
        survey.warnings.add("shard without samples", shard.path.name)
    with shard.path.open("rb") as file:
        for row in range(len(index)):
            place = SampleRef(shard.path, index.key(row), index.members(row))
            survey.samples += 1
            survey.picked.offer(place)
            _survey_sample(survey, place, file, class_of)


def _survey_sample(survey: SetSurvey, place: SampleRef, file: BinaryIO, class_of: ClassOf) -> None:
    for member in place.members:
        survey.members.add(member)
    wanted = {name: place.members[name] for name in ("meta.json", "txt") if name in place.members}
    texts = {name: read_exactly(file, at, place.path) for name, at in wanted.items()}
    meta = _meta(texts, place, survey.warnings)
    for name in FACTS:
        if name in meta:
            survey.facts.setdefault(name, Tally()).add(_text(meta[name]))
    values = {name: meta.get(name) for name in QUANTITIES}
    if "txt" in texts:
        caption = texts["txt"].decode(errors="replace")
        survey.captions.add(caption)
        values["words"] = len(caption.split())
    for name, value in values.items():
        if isinstance(value, int | float) and abs(value) < _LARGEST:
            survey.spreads.setdefault(name, Histogram(QUANTITIES[name])).add(float(value))
    if meta:
        _survey_meta(survey, place, meta, class_of)


def _meta(texts: Mapping[str, bytes], place: SampleRef, warnings: Warnings) -> dict[str, Any]:
    if "meta.json" not in texts:
        warnings.add("sample without meta.json", place.key)
        return {}
    try:
        meta: Any = parse_json(texts["meta.json"])
    except ValueError:
        meta = None
    if not isinstance(meta, dict):
        warnings.add("meta.json is no JSON object", place.key)
        return {}
    return meta


def _survey_meta(
    survey: SetSurvey, place: SampleRef, meta: dict[str, Any], class_of: ClassOf
) -> None:
    synthetic = meta.get("synthetic") is True
    survey.synthetic += synthetic
    for kind in _oddities(place, meta, synthetic):
        survey.warnings.add(kind, place.key)
    if meta.get("scene_id"):
        survey.scenes.add(str(meta["scene_id"]))
    if "truth" in meta:
        survey.classes.add(class_of(meta) or "mixed")
    if isinstance(template := meta.get("caption_template"), dict):
        survey.tokens.add(str(template.get("token", "")))
    if day := str(meta.get("datetime") or "")[:10]:
        first, last = survey.days or (day, day)
        survey.days = min(first, day), max(last, day)
    if footprint := meta.get("footprint"):
        try:
            outline = _outline(place.key, meta, footprint)
        except (TypeError, ValueError, OverflowError):
            survey.warnings.add("footprint is no list of positions", place.key)
        else:
            survey.outlines.offer(outline)


def _oddities(place: SampleRef, meta: Mapping[str, Any], synthetic: bool) -> Iterator[str]:
    if meta.get("schema") != SAMPLE_SCHEMA:
        yield f"schema is not {SAMPLE_SCHEMA}"
    if meta.get("key", place.key) != place.key:
        yield "meta.json carries another key"
    stem, folder = place.path.stem, place.path.parent.name
    if stem.isdigit() and len(stem) == 6 and not place.key.startswith(stem):
        yield "key does not begin with the number of its shard"
    if folder in SPLITS and meta.get("split", folder) != folder:
        yield "split differs from the folder of the shard"
    if synthetic and any(meta.get(name) is not None for name in GEOLOCATION):
        yield "synthetic image with a geolocation"


def _outline(key: str, meta: Mapping[str, Any], footprint: Sequence[Sequence[float]]) -> Outline:
    points = tuple((float(lon), float(lat)) for lon, lat in footprint)
    return Outline(key, str(meta.get("split", "")), str(meta.get("scene_id", "")), points)


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    return f"{value:g}" if isinstance(value, float) else str(value)


def shared_ground(outlines: Sequence[Outline]) -> list[tuple[str, str]]:
    """Pairs of tiles of different splits whose outlines overlap; keys, at most 100 pairs.

    Outlines are convex; two of them overlap where no edge of either separates them.
    """
    found: list[tuple[str, str]] = []
    hulls = [unwrapped(outline) for outline in outlines]
    order = sorted(range(len(outlines)), key=lambda i: float(hulls[i][:, 1].min()))
    south = np.array([hulls[i][:, 1].min() for i in order])
    for rank, i in enumerate(order):
        until = int(np.searchsorted(south, hulls[i][:, 1].max()))
        for j in itertools.islice(order, rank + 1, until):
            if outlines[i].split != outlines[j].split and _overlap(hulls[i], hulls[j]):
                found.append((outlines[i].key, outlines[j].key))
                if len(found) == 100:
                    return found
    return found


def unwrapped(outline: Outline) -> NDArray[np.float64]:
    """Corners (N, 2) as longitude, latitude, degrees; longitudes go on beyond 180."""
    points = np.array(outline.points, np.float64)
    points[:, 0] = points[0, 0] + (points[:, 0] - points[0, 0] + 180.0) % 360.0 - 180.0
    return points


def _overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether two convex outlines (N, 2) share ground; touching does not count."""
    shift = 360.0 * round((one[0, 0] - other[0, 0]) / 360.0)
    other = other + np.array([shift, 0.0])
    for shape in (one, other):
        edges = np.diff(np.vstack([shape, shape[:1]]), axis=0)
        for normal in np.stack([-edges[:, 1], edges[:, 0]], axis=1):
            a, b = one @ normal, other @ normal
            # Straight edges of a projected tile are a little curved in degrees.
            slack = 1e-3 * float(np.ptp(a))
            if normal.any() and (a.max() <= b.min() + slack or b.max() <= a.min() + slack):
                return False
    return True
