"""Templates: from a cleaned caption to the variants and the training text of a sample."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hpc.errors import ConfigError
from sarhpc.captioning.captioners.captioner import Draft
from sarhpc.captioning.clean import clean, sentences
from sarhpc.captioning.config import TemplateConfig

TEMPLATE_VERSION = "1"
"""Raised when the same draft and configuration would give another text."""

_METADATA = {"band": "band", "gsd": "pixel_m", "incidence": "incidence_deg"}
_FIELDS = frozenset({"token", "caption", *_METADATA})


@dataclass(frozen=True)
class Captions:
    """The three lengths of one caption, without activation phrase, and the training text."""

    short: str
    mid: str
    long: str
    text: str

    @property
    def variants(self) -> dict[str, str]:
        """The lengths by the names public SAR sets use."""
        return {"SHORT": self.short, "MID": self.mid, "LONG": self.long}


def fill(pattern: str, token: str, caption: str, **metadata: str) -> str:
    """`pattern` with its fields filled, in single spaces.

    Raises:
        ConfigError: a field is unknown or has no value.
    """
    try:
        text = pattern.format_map({"token": token, "caption": caption, **metadata})
    except (KeyError, ValueError, IndexError) as error:
        raise ConfigError(
            f"template {pattern!r} cannot be filled ({error}): its fields are "
            f"{', '.join(sorted(_FIELDS))}, and metadata fields need a value in every sample."
        ) from error
    return " ".join(text.split())


def compose(draft: Draft, meta: Mapping[str, Any], cfg: TemplateConfig) -> Captions:
    """Variants and training text of a draft.

    SHORT is the first sentence; MID adds further sentences and relations; LONG adds the
    `cfg.metadata` phrases of the sample, each dropped with `cfg.metadata_dropout`.

    Raises:
        ConfigError: the pattern, a metadata phrase or the variant is not valid.
    """
    first, *others = sentences(draft.text) or [""]
    short = clean(first, cfg.strip_openings)
    mid = "; ".join([short, *(clean(part) for part in (*others, *draft.details))])
    values = metadata_values(meta)
    phrases = _phrases(cfg.metadata, values, str(meta.get("key", "")), cfg.metadata_dropout)
    variants = {"SHORT": short, "MID": mid, "LONG": ", ".join([mid, *phrases])}
    if cfg.variant not in variants:
        raise ConfigError(f"template.variant={cfg.variant!r}: take SHORT, MID or LONG.")
    text = fill(cfg.pattern, cfg.token, variants[cfg.variant], **values)
    return Captions(short, mid, variants["LONG"], text)


def metadata_values(meta: Mapping[str, Any]) -> dict[str, str]:
    """Texts of {band}, {gsd} (m) and {incidence} (whole degrees) as far as `meta` knows them."""
    found = {name: meta.get(member) for name, member in _METADATA.items()}
    texts = {"band": "{}", "gsd": "{:g}", "incidence": "{:.0f}"}
    return {name: texts[name].format(v) for name, v in found.items() if v is not None}


def check_template(cfg: TemplateConfig) -> None:
    """Raise ConfigError unless `cfg` can be filled for a sample with complete metadata.

    Raises:
        ConfigError: it cannot.
    """
    compose(Draft("a field"), {"band": "X", "pixel_m": 0.35, "incidence_deg": 45.0}, cfg)


def template_record(cfg: TemplateConfig) -> dict[str, Any]:
    """The template entry of a sample's metadata."""
    settings = asdict(cfg)
    del settings["strip_openings"]
    return {"version": TEMPLATE_VERSION, **settings}


def _phrases(
    patterns: Sequence[str], values: Mapping[str, str], key: str, dropout: float
) -> list[str]:
    phrases = []
    for number, pattern in enumerate(patterns):
        needed = {name for _, name, _, _ in string.Formatter().parse(pattern) if name}
        unknown = needed - _METADATA.keys()
        if unknown:
            raise ConfigError(
                f"template.metadata phrase {pattern!r} has unknown fields {sorted(unknown)}: "
                f"known are {', '.join(_METADATA)}."
            )
        if needed <= values.keys() and _draw(f"{key}:{number}") >= dropout:
            phrases.append(pattern.format_map(values))
    return phrases


def _draw(name: str) -> float:
    """Uniform number in [0, 1) that depends on `name` alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2.0**64
