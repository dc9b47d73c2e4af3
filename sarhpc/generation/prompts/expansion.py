"""The combinations of levels that a grammar asks for, each with its descriptions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from hpc.errors import ConfigError
from sarhpc.generation.prompts.config import GrammarConfig
from sarhpc.generation.prompts.grammar import DENSITIES, FIELDS, SEASONS, Grammar
from sarhpc.generation.prompts.relation import NONE, parse_relation, require_level
from sarhpc.generation.prompts.row import Label, level_text

MOST_PROMPTS = 1_000_000


def expand(grammar: Grammar, cfg: GrammarConfig) -> Iterator[tuple[dict[str, Label], list[str]]]:
    """Fields and descriptions of every combination of levels that makes sense.

    A description of two relations ("beside crop fields" is one of `beside field` and of `beside
    crop`) belongs to the first of them, all else being equal.

    Raises:
        ConfigError: a level is unknown or named twice, a class is left without any combination, or
            there are more than a million.
    """
    levels = _levels(grammar, cfg)
    relations = {text: parse_relation(text, grammar.classes) for text in cfg.relations or [NONE]}
    total = 0
    for name in cfg.classes:
        densities: Sequence[Label | None] = [
            density for density in cfg.density if density in grammar.densities(name)
        ] or [None]
        fitting = [text for text, each in relations.items() if grammar.goes_with(name, each)]
        if not fitting:
            raise ConfigError(
                f"relations: class {name} goes with none of {', '.join(relations)}; add `{NONE}`, "
                "or leave the class out"
            )
        varied: list[Sequence[Label | None]] = [densities, fitting if cfg.relations else [None]]
        varied += [levels[field_name] or [None] for field_name in FIELDS[3:]]
        if math.prod(map(len, varied)) > MOST_PROMPTS:
            raise ConfigError(f"more than {MOST_PROMPTS:,} combinations: give fewer levels")
        known: set[tuple[Label, ...]] = set()
        for chosen in itertools.product(*varied):
            pairs = zip(FIELDS, (name, *chosen), strict=True)
            fields: dict[str, Label] = {key: level for key, level in pairs if level is not None}
            others = tuple(level for key, level in fields.items() if key != "relation")
            descriptions = [t for t in grammar.descriptions(fields) if (t, *others) not in known]
            known.update((text, *others) for text in descriptions)
            total += len(descriptions)
            if total > MOST_PROMPTS:
                raise ConfigError(f"more than {MOST_PROMPTS:,} prompts: give fewer levels")
            if descriptions:
                yield fields, descriptions


def _levels(grammar: Grammar, cfg: GrammarConfig) -> dict[str, Sequence[Label]]:
    """Levels by field, each known."""
    levels: dict[str, Sequence[Label]] = {
        "class": cfg.classes, "density": cfg.density, "relation": cfg.relations,
        "season": cfg.season, "band": cfg.band, "spacing_m": cfg.spacing_m,
        "incidence_deg": cfg.incidence_deg,
    }  # fmt: skip
    if not cfg.classes:
        raise ConfigError(f"classes: none; give some of {', '.join(grammar.classes)}")
    known = {"class": grammar.classes, "density": DENSITIES, "season": SEASONS}
    for name, values in levels.items():
        if len({*values}) < len(values):
            raise ConfigError(f"{name}: a level is named twice in {', '.join(map(str, values))}")
        for value in values if name in known else ():
            require_level(name, value, known[name])
    for name in ("spacing_m", "incidence_deg"):
        wrong = [value for value in levels[name] if not 0 < float(value) < 1000]
        if wrong:
            raise ConfigError(f"{name}: {wrong[0]} is no {name}; a number above 0 is expected")
    every = {level_text(value) for values in levels.values() for value in values}
    for level, weight in cfg.weights.items():
        if level not in every:
            require_level("weights", level, sorted(every))
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"weights: {level} has {weight}; a finite number from 0 is expected")
    return levels
