"""What the pixels of some samples of a set say: speckle, backscatter, thumbnails."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.evaluation.page import colour_thumbnail, radar_thumbnail
from sarhpc.evaluation.survey import SampleRef, SetSurvey
from sarhpc.measures.features import LEAST_PX, Features, measure
from sarhpc.shards.images import decode_array, decode_gray8, decode_rgb8
from sarhpc.shards.sample import Sample
from sarhpc.shards.schema import validate_sample
from sarhpc.shards.stretch import displayed
from sarhpc.shards.subset import spread

SIGMA0_EDGES = np.linspace(-60.0, 30.0, 181)
"""Edges of the histogram of sigma0, dB."""

_LARGEST = 1e300
MIDDLE_PX = 256
"""Side of the middle of a tile in which speckle is measured: enough, and soon done."""

T = TypeVar("T")

DecodeMaster = Callable[[NDArray[np.uint16], Mapping[str, Any]], NDArray[np.floating[Any]]]
"""Amplitude of the 16-bit master, by the metadata of its sample."""


@dataclass
class PixelSurvey:
    """What the pixels of the picked samples say."""

    survey: SetSurvey
    features: Features | None = None
    sigma0: NDArray[np.int64] = field(default_factory=lambda: np.zeros(180, np.int64))
    """Pixels per bin of sigma0, from the masters of calibrated tiles."""
    tiles: int = 0
    gallery: list[TileCard] = field(default_factory=list)


@dataclass(frozen=True)
class TileCard:
    """One tile of the gallery."""

    radar: NDArray[np.uint8]
    optical: NDArray[np.uint8] | None
    caption: str
    key: str
    facts: Sequence[str]


def survey_pixels(survey: SetSurvey, decode_master: DecodeMaster, gallery: int = 24) -> PixelSurvey:
    """The pixels of the samples that the survey picked, read one at a time."""
    look = PixelSurvey(survey)
    places = spread(survey.picked.items, survey.picked.most)
    shown = {place.key for place in spread(places, gallery)}
    tiles = _measurable(look, places, shown, decode_master)
    first = next(tiles, None)
    if first is not None:
        look.features = measure(itertools.chain([first], tiles))
    return look


def _measurable(
    look: PixelSurvey, places: Sequence[SampleRef], shown: set[str], decode_master: DecodeMaster
) -> Iterator[NDArray[np.uint8]]:
    """Yield the tiles that are large enough to measure; note everything else on the way."""
    warnings = look.survey.warnings
    for place in places:
        try:
            sample = place.read()
            tile = decode_gray8(sample.members["sar.png"])
        except (DataError, KeyError) as error:
            why = "no sar.png" if isinstance(error, KeyError) else str(error)
            warnings.add("sample without a readable picture", f"{place.key} ({why})")
            continue
        look.tiles += 1
        middle = _middle(tile)
        if int(middle.min()) == int(middle.max()):
            whole = int(tile.min()) == int(tile.max())
            warnings.add(f"{'tile' if whole else 'middle of a tile'} of one value", place.key)
        try:
            validate_sample(sample)
            _count_sigma0(look, sample, decode_master)
        except DataError as error:
            warnings.add("sample breaks the schema", str(error))
        if place.key in shown:
            look.gallery.append(_card(sample, tile))
        # Smaller tiles are shown, but have too few pixels to measure speckle in.
        if min(tile.shape) >= LEAST_PX and middle.min() < middle.max():
            yield middle


def _middle(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    row, col = (max((side - MIDDLE_PX) // 2, 0) for side in tile.shape)
    return tile[row : row + MIDDLE_PX, col : col + MIDDLE_PX]


def _count_sigma0(look: PixelSurvey, sample: Sample, decode_master: DecodeMaster) -> None:
    if "sar16.npy" not in sample.members or "meta.json" not in sample.members:
        return
    meta = sample.meta
    if meta.get("calibration") == "sigma0" and {"master_scale", "master_law"} & meta.keys():
        amplitude = decode_master(decode_array(sample.members["sar16.npy"]), meta)
        levels = 20.0 * np.log10(amplitude[amplitude > 0])
        look.sigma0 += np.histogram(np.clip(levels, -59.99, 29.99), SIGMA0_EDGES)[0]


def _card(sample: Sample, tile: NDArray[np.uint8]) -> TileCard:
    optical = _readable(lambda: decode_rgb8(sample.members["optic.png"]))
    meta = _readable(lambda: sample.meta) or {}
    return TileCard(
        radar=displayed(radar_thumbnail(tile), meta),
        optical=None if optical is None else colour_thumbnail(optical),
        caption=_readable(lambda: sample.caption) or "",
        key=sample.key,
        facts=list(_card_facts(meta, tile)),
    )


def _readable(read: Callable[[], T | None]) -> T | None:
    """What `read` returns; None where the sample lacks it, or it is damaged."""
    try:
        return read()
    except (DataError, KeyError):
        return None


def _card_facts(meta: Mapping[str, Any], tile: NDArray[np.uint8]) -> Iterator[str]:
    yield f"{tile.shape[0]} x {tile.shape[1]} px" + _with_unit(meta, "pixel_m", " of {:g} m")
    if meta.get("synthetic") is True:
        yield f"synthetic, seed {meta.get('seed')}"
    for name in ("split", "scene_id"):
        if meta.get(name):
            yield str(meta[name])
    channel = " ".join(str(meta[n]) for n in ("band", "polarization") if meta.get(n))
    if channel:
        yield channel
    yield from filter(None, (_with_unit(meta, "incidence_deg", "{:.1f}° incidence"),
                             _with_unit(meta, "enl", "{:.2g} looks")))  # fmt: skip


def _with_unit(meta: Mapping[str, Any], name: str, pattern: str) -> str:
    value = meta.get(name)
    known = isinstance(value, int | float) and abs(value) < _LARGEST
    return pattern.format(value) if known else ""
