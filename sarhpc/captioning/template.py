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
from sarhpc.shards.condition_texts import CONDITIONS, metadata_values

TEMPLATE_VERSION = "1"
"""Raised when the same draft and configuration would give another text."""

_FIELDS = frozenset({"token", "caption", *CONDITIONS})


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
    `cfg.metadata` phrases of the sample, each dropped with `cfg.metadata_dropout`. A text that came
    along stays as it is unless `cfg` asks for a token, which it then gets once.

    Raises:
        ConfigError: the pattern, a metadata phrase or the variant is not valid.
    """
    lengths = draft.lengths
    if lengths is not None and (not asks_token(cfg) or len({*lengths.values()}) > 1):
        return _as_given(lengths, meta, cfg)
    first, *others = sentences(draft.text) or [""]
    short = clean(first, cfg.strip_openings)
    mid = "; ".join([short, *(clean(part) for part in (*others, *draft.details))])
    values = metadata_values(meta)
    phrases = _phrases(cfg.metadata, values, str(meta.get("key", "")), cfg.metadata_dropout)
    variants = {"SHORT": short, "MID": mid, "LONG": ", ".join([mid, *phrases])}
    if cfg.variant not in variants:
        raise ConfigError(f"template.variant={cfg.variant!r}: take SHORT, MID or LONG.")
    chosen = variants[cfg.variant]
    if lengths is not None:
        chosen = without_opening(chosen, cfg.token)
    text = fill(cfg.pattern, cfg.token, chosen, **values)
    return Captions(short, mid, variants["LONG"], text)


def asks_token(cfg: TemplateConfig) -> bool:
    """Whether the configuration asks for a token on texts that came along, by its own words."""
    default = TemplateConfig()
    return (cfg.token, cfg.pattern) != (default.token, default.pattern)


def without_opening(text: str, opening: str) -> str:
    """`text` without these words at its beginning, in whatever case."""
    words = opening.strip()
    head, rest = text[: len(words)], text[len(words) :]
    return rest.strip() if words and head.lower() == words.lower() and rest[:1].isspace() else text


def _as_given(lengths: Mapping[str, str], meta: Mapping[str, Any], cfg: TemplateConfig) -> Captions:
    if cfg.variant not in lengths:
        raise ConfigError(f"template.variant={cfg.variant!r}: take SHORT, MID or LONG.")
    text = lengths[cfg.variant]
    if asks_token(cfg):
        bare = without_opening(text, cfg.token)
        text = fill(cfg.pattern, cfg.token, bare, **metadata_values(meta))
    return Captions(lengths["SHORT"], lengths["MID"], lengths["LONG"], text)


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
        unknown = needed - CONDITIONS.keys()
        if unknown:
            raise ConfigError(
                f"template.metadata phrase {pattern!r} has unknown fields {sorted(unknown)}: "
                f"known are {', '.join(CONDITIONS)}."
            )
        if needed <= values.keys() and _draw(f"{key}:{number}") >= dropout:
            phrases.append(pattern.format_map(values))
    return phrases


def _draw(name: str) -> float:
    """Uniform number in [0, 1) that depends on `name` alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2.0**64
