"""What the drawn images of a set say of themselves, and whether two sets can be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpc.errors import ConfigError
from sarhpc.evaluation.config import LEAST_PX
from sarhpc.evaluation.image_sets import ARRAYS, Image, group_of
from sarhpc.shards.foreign import RADAR
from sarhpc.shards.radiometry import LEVEL_MASTER, LINEAR_MODES
from sarhpc.shards.sample import SAMPLE_SCHEMA
from sarhpc.shards.schema import GEOLOCATION

AMPLITUDE, CODES, RAW_CODES = "amplitude", "8-bit codes", "8-bit codes as they are"
"""Pixels that are measured, the best first: linear amplitude with its range; what an 8-bit picture
holds, by its law; the same without regard to a law."""
PIXELS = (AMPLITUDE, CODES, RAW_CODES)

MANIFEST = ("prompt", "seed", "model_sha", "config_fingerprint")
"""What a generated image says of its origin, beside that it is synthetic."""
SPACING_TOLERANCE = 0.01
"""Relative difference of spacings that counts as none."""
LINEAR_LAWS = LINEAR_MODES
UNKNOWN = "unknown"


@dataclass(frozen=True)
class SetFacts:
    """Facts on the images of a set that were drawn."""

    name: str
    images: int
    px: tuple[int, int]
    """Rows and columns of the first."""
    spacings_m: tuple[float, ...] = ()
    bands: tuple[str, ...] = ()
    laws: tuple[str, ...] = ()
    """Laws of normalisation of their 8-bit pictures; `unknown` where one does not say."""
    has_range: bool = False
    """Whether every image has a 16-bit master or amplitude."""
    has_codes: bool = False
    """Whether every image has an 8-bit picture."""
    levels_without_law: bool = False
    """Whether there are masters that hold levels of a law that is not said."""
    full_scale: bool = False
    """Whether every amplitude is known relative to code 255 of the picture."""
    splits: Mapping[str, int] = field(default_factory=dict)
    groups: int = 0
    """Flight lines, or else scenes."""
    synthetic: int = 0
    manifests: Mapping[str, int] = field(default_factory=dict)
    """Of images of this project: how many there are (`images`), how many say all that a generated
    one has to say (`complete`), and how many lack each fact."""


@dataclass(frozen=True)
class Comparison:
    """How two sets are compared, and what has to be said of it."""

    pixels: str
    px: tuple[int, int]
    """Rows and columns that are measured, the middle of larger images."""
    notes: tuple[str, ...]
    common_scale: bool = True
    """Whether both amplitudes are in one unit."""


def facts_of(
    name: str, images: Iterable[Image], px: tuple[int, int], sixteen_bits: bool
) -> SetFacts:
    """The facts on images of a set.

    Args:
        name: of the set.
        images: those that were drawn, with metadata and the names of members.
        px: rows and columns of the first.
        sixteen_bits: whether a picture of the set holds more than 8 bits.
    """
    splits: Counter[str] = Counter()
    groups: set[str] = set()
    spacings: set[float] = set()
    bands: set[str] = set()
    laws: set[str] = set()
    manifests: Counter[str] = Counter()
    ranged, coded, scaled, count, synthetic, lawless = 0, 0, 0, 0, 0, 0
    for image in images:
        meta = image.meta
        count += 1
        splits[str(meta.get("split") or "unknown")] += 1
        synthetic += meta.get("synthetic") is True
        manifests.update(manifest_of(meta))
        groups.add(group_of(meta))
        law = meta.get("normalisation")
        laws.add(str(law.get("mode")) if isinstance(law, Mapping) else UNKNOWN)
        lawless += meta.get("master_law") == LEVEL_MASTER and not isinstance(law, Mapping)
        _add(spacings, meta.get("pixel_m"))
        if isinstance(meta.get("band"), str):
            bands.add(str(meta["band"]))
        array = any(name in image.members for name in ARRAYS)
        ranged += array or sixteen_bits
        coded += not sixteen_bits and any(name not in ARRAYS for name in pictures(image.members))
        scaled += "sar16.npy" in image.members and _has_full_scale(meta)
    return SetFacts(
        name, count, px, tuple(sorted(spacings)), tuple(sorted(bands)), tuple(sorted(laws)),
        has_range=ranged == count, has_codes=coded == count, full_scale=scaled == count,
        levels_without_law=lawless > 0,
        splits=dict(splits), groups=len(groups - {""}), synthetic=synthetic,
        manifests=dict(manifests),
    )  # fmt: skip


def manifest_of(meta: Mapping[str, Any]) -> list[str]:
    """`images`, and `complete` or the facts that a generated image of this project lacks.

    Nothing for a third-party image or a real tile, which promise nothing.
    """
    if meta.get("schema") != SAMPLE_SCHEMA or meta.get("synthetic") is False:
        return []
    missing = [name for name in MANIFEST if meta.get(name) in (None, "")]
    if meta.get("synthetic") is not True:
        missing.append("synthetic: true")
    if any(meta.get(name) is not None for name in GEOLOCATION):
        missing.append("an empty geolocation")
    return ["images", *(missing or ["complete"])]


def pictures(names: Iterable[str]) -> list[str]:
    """The names that are radar pictures or arrays, the one to take first."""
    found = set(names)
    return [name for name in RADAR if name in found]


def _add(spacings: set[float], value: Any) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        spacings.add(float(value))


def _has_full_scale(meta: Mapping[str, Any]) -> bool:
    law = meta.get("normalisation")
    top = law.get("top") if isinstance(law, Mapping) else None
    return meta.get("master_law") == LEVEL_MASTER or (isinstance(top, int | float) and top > 0)


def comparison_of(real: SetFacts, other: SetFacts, one_law: bool = False) -> Comparison:
    """How a set is compared with the real one.

    Args:
        real: facts of the real set.
        other: facts of the other.
        one_law: whether codes of a law that is not said follow that of the real ones, as those of
            a model that was trained on them.

    Raises:
        ConfigError: they are of other spacing, too small, or in codes whose law is not known.
    """
    notes = [*_spacing_notes(real, other), *_band_notes(real, other)]
    px = min(real.px[0], other.px[0]), min(real.px[1], other.px[1])
    if min(px) < LEAST_PX:
        raise ConfigError(
            f"{real.name} has images of {_size(real.px)} px and {other.name} of {_size(other.px)}: "
            f"speckle and texture need {LEAST_PX} px or more; give larger images"
        )
    if real.px != other.px:
        notes.append(
            f"{real.name} has images of {_size(real.px)} px and {other.name} of {_size(other.px)}: "
            f"the middle {_size(px)} px of each are measured."
        )
    pixels = AMPLITUDE if real.has_range and other.has_range else CODES
    unknown = _unknown_law(real, other, pixels)
    if unknown and not one_law:
        raise ConfigError(unknown)
    if unknown:
        pixels = RAW_CODES
        notes.append(
            f"The law of the codes of {other.name} is not stated; it is assumed to be that of "
            f"{real.name}, {', '.join(real.laws)}, and codes are compared as they are."
        )
    common = True
    if pixels == AMPLITUDE and real.full_scale != other.full_scale:
        common = False
        notes.append(
            f"{real.name} and {other.name} hold amplitude in units that are not related: each is "
            "divided by its own mean + 3 sigma, so that a difference of gain is not seen."
        )
    elif pixels == CODES:
        common = real.has_codes and other.has_codes
        notes += _code_notes(real, other)
    return Comparison(pixels, px, tuple(notes), common)


def _size(px: Sequence[int]) -> str:
    return " x ".join(map(str, px))


def _spacing_notes(real: SetFacts, other: SetFacts) -> Iterator[str]:
    """What is to be said of spacings.

    Raises:
        ConfigError: an image of the other set has a spacing that no real one has.
    """
    if real.spacings_m and other.spacings_m:
        low, high = real.spacings_m[0], real.spacings_m[-1]
        near = 1 + SPACING_TOLERANCE
        far = [s for s in other.spacings_m if s * near < low or s > high * near]
        if far:
            raise ConfigError(
                f"{real.name} has images of {_range(real.spacings_m)} a pixel and {other.name} of "
                f"{_range(other.spacings_m)}: speckle, spectrum and texture are measured in "
                "pixels, so such a comparison means nothing; resample one of them (tile.pixel_m) "
                "and compare again"
            )
    for one, rest in ((real, other), (other, real)):
        if not one.spacings_m and rest.spacings_m:
            yield (
                f"The spacing of {one.name} is not known: it is assumed to be that of {rest.name}."
            )
        elif one.spacings_m and one.spacings_m[-1] > one.spacings_m[0] * (1 + SPACING_TOLERANCE):
            yield (
                f"{one.name} has images of {_range(one.spacings_m)} a pixel, and what is measured "
                "in pixels is a mean over them."
            )


def _range(spacings: Sequence[float]) -> str:
    low, high = f"{spacings[0]:g}", f"{spacings[-1]:g}"
    return f"{low} m" if low == high else f"{low} to {high} m"


def _band_notes(real: SetFacts, other: SetFacts) -> list[str]:
    if real.bands and other.bands and real.bands != other.bands:
        return [
            f"{real.name} is of band {', '.join(real.bands)} and {other.name} of "
            f"{', '.join(other.bands)}: levels and texture differ by that too."
        ]
    return []


def _unknown_law(real: SetFacts, other: SetFacts, pixels: str) -> str:
    """Why codes cannot be decoded alike: of an unknown law and of one that is not linear."""
    for one, rest in ((real, other), (other, real)):
        curved = sorted({*rest.laws} - {*LINEAR_LAWS, UNKNOWN})
        coded = one.levels_without_law or (pixels == CODES and one.has_codes)
        if UNKNOWN in one.laws and coded and curved:
            return (
                f"the codes of {rest.name} follow the law {', '.join(curved)} and {one.name} does "
                "not say which law its codes follow: they cannot be compared; name it in "
                "`normalisation` of its metadata, or give amplitude"
            )
    return ""


def _code_notes(real: SetFacts, other: SetFacts) -> list[str]:
    """What is to be said where 8-bit codes are compared."""
    notes = []
    ranged, coded = (real, other) if real.has_range else (other, real)
    if ranged.has_range:
        notes.append(
            f"{ranged.name} has a 16-bit master or amplitude and {coded.name} has 8 bits only: "
            "8-bit codes are compared, and clipped levels are not seen."
        )
    if not (real.has_codes and other.has_codes):
        notes.append(
            f"{ranged.name} has no 8-bit pictures: its amplitude is quantised with its mean + 3 "
            "sigma at code 255, so that a difference of gain is not seen."
        )
    if real.laws != other.laws:
        notes.append(
            f"The normalisation of {real.name} is {', '.join(real.laws)} and that of {other.name} "
            f"{', '.join(other.laws)}; unknown ones are taken to be linear."
        )
    return notes
