"""The grammar of prompts: fields of a scene, and the description that states them.

Descriptions use the nouns of ground-truth captions, so that a model is asked for scenes in the
words that it was trained with.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hpc.errors import ConfigError
from sarhpc.generation.prompts.config import GrammarConfig
from sarhpc.generation.prompts.row import Label

Nouns = Mapping[str, Sequence[str]]
"""Phrases by the key of their meaning."""

FIELDS = ("class", "density", "relation", "season", "band", "spacing_m", "incidence_deg")
"""Fields of the grammar, and names of their labels."""
CONDITIONS = ("band", "spacing_m", "incidence_deg")
"""Fields that the caption template states, not the description."""
MOST_PROMPTS = 1_000_000
NONE = "none"
SEASONS = ("winter", "spring", "summer", "autumn")
DENSITIES = ("dense", "medium", "open")
PLACES = ("middle", "near range", "far range", "upper part", "lower part")

_CLASSES: Mapping[str, Mapping[str | None, tuple[str, ...]]] = {
    "water": {None: ("water", "river")},
    "river": {None: ("river",)},
    "forest": {
        None: ("forest", "dense forest", "open forest"),
        "dense": ("dense forest",),
        "medium": ("forest",),
        "open": ("open forest",),
    },
    "field": {None: ("crop", "grass", "bare", "shrub")},
    "crop": {None: ("crop",)},
    "grass": {None: ("grass",)},
    "bare soil": {None: ("bare",)},
    "vineyard": {None: ("shrub",)},
    "town": {
        None: ("town", "dense town", "halls"),
        "dense": ("dense town",),
        "medium": ("town",),
        "open": ("village",),
    },
    "industry": {None: ("halls",)},
}
"""Class -> density -> keys of its nouns."""
_GROUPS = {
    "river": "water",
    "crop": "field",
    "grass": "field",
    "bare soil": "field",
    "vineyard": "field",
    "industry": "town",
}
_ELEMENTS = {
    "pond": ("pond", "water"),
    "lake": ("some water", "water"),
    "trees": ("trees", "forest"),
    "wood": ("some forest", "forest"),
    "fields": ("some field", "field"),
    "clearing": ("clearing", "field"),
    "house": ("house", "town"),
    "houses": ("houses", "town"),
    "village": ("village", "town"),
}
"""Element of a relation -> key of its noun, and its group."""
_COURSES = {
    "river": ("stream", ("forest", "field", "town")),
    "road": ("road", ("forest", "field")),
    "path": ("path", ("forest", "field")),
}
"""What crosses a scene -> key of its noun, and the groups that it crosses."""


def land_cover_of(name: str) -> str:
    """Land cover of a class: river is water, crop is field; any other class itself."""
    return _GROUPS.get(name, name)


@dataclass(frozen=True)
class Grammar:
    """Nouns, and classes beside those of the land cover."""

    nouns: Nouns
    phrases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Class -> descriptions, instead of the nouns of a class or in addition to the classes."""

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes that it knows."""
        return (*_CLASSES, *(name for name in self.phrases if name not in _CLASSES))

    def densities(self, name: str) -> tuple[str, ...]:
        """Densities that a class can have."""
        if name in self.phrases:
            return ()
        return tuple(density for density in _CLASSES[name] if density is not None)

    def descriptions(self, fields: Mapping[str, Label]) -> list[str]:
        """The descriptions of a scene with these fields, at least one.

        Raises:
            ConfigError: a level is unknown, or class, density and relation do not go together.
        """
        name = self._class(fields)
        relation = _parsed(str(fields.get("relation", NONE)), self.classes)
        if not self.goes_with(name, relation):
            raise ConfigError(f"class {name} cannot be {relation.text}: leave the combination out")
        season = fields.get("season")
        _require_level("season", season, SEASONS)
        ending = "" if season is None else f" in {season}"
        heads = self._heads(name, fields.get("density"))
        return [
            f"{self._related(head, relation, number)}{ending}" for number, head in enumerate(heads)
        ]

    def goes_with(self, name: str, relation: Relation) -> bool:
        """Whether a relation makes sense for a class; any does for classes of `phrases`."""
        group = land_cover_of(name)
        if name in self.phrases or relation.kind == NONE:
            return True
        if relation.kind == "crossed by":
            return group in _COURSES[relation.thing][1]
        if relation.kind == "beside":
            return land_cover_of(relation.thing) != group
        if relation.thing == "clearing":
            return group == "forest"
        return _ELEMENTS[relation.thing][1] != group

    def _class(self, fields: Mapping[str, Label]) -> str:
        _require_level("class", fields.get("class", ""), self.classes)
        return str(fields["class"])

    def _heads(self, name: str, density: Label | None) -> list[str]:
        if name in self.phrases:
            if density is not None:
                raise ConfigError(f"class {name} of phrases has no density: leave it out")
            return list(self.phrases[name])
        _require_level("density", density, DENSITIES)
        words = _CLASSES[name]
        if density is not None and str(density) not in words:
            raise ConfigError(f"class {name} has no density: leave it out")
        keys = words[None if density is None else str(density)]
        return [phrase for key in keys for phrase in self.nouns[key]]

    def _related(self, head: str, relation: Relation, number: int) -> str:
        if relation.kind == NONE:
            return head
        if relation.kind == "beside":
            others = self._heads(relation.thing, None)
        elif relation.kind == "crossed by":
            others = list(self.nouns[_COURSES[relation.thing][0]])
        else:
            others = list(self.nouns[_ELEMENTS[relation.thing][0]])
        noun = others[number % len(others)]
        place = f" in the {relation.place}" if relation.place else ""
        link = "and" if relation.kind == "with" and "with" in head.split() else relation.kind
        return f"{head} {link} {noun}{place}"


@dataclass(frozen=True)
class Relation:
    """What stands beside the class of a scene."""

    kind: str
    """`none`, `crossed by`, `beside` or `with`."""
    thing: str = ""
    place: str = ""

    @property
    def text(self) -> str:
        """As it is written in a configuration."""
        place = f" in the {self.place}" if self.place else ""
        return f"{self.kind} {self.thing}{place}".strip()


def expand(grammar: Grammar, cfg: GrammarConfig) -> Iterator[tuple[dict[str, Label], list[str]]]:
    """Fields and descriptions of every combination of levels that makes sense.

    Raises:
        ConfigError: a level is unknown or named twice, a class is left without any combination, or
            there are more than a million.
    """
    levels = _levels(grammar, cfg)
    relations = {text: _parsed(text, grammar.classes) for text in cfg.relations or [NONE]}
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
        for chosen in itertools.product(*varied):
            pairs = zip(FIELDS, (name, *chosen), strict=True)
            fields: dict[str, Label] = {key: level for key, level in pairs if level is not None}
            descriptions = grammar.descriptions(fields)
            total += len(descriptions)
            if total > MOST_PROMPTS:
                raise ConfigError(f"more than {MOST_PROMPTS:,} prompts: give fewer levels")
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
            _require_level(name, value, known[name])
    for name in ("spacing_m", "incidence_deg"):
        wrong = [value for value in levels[name] if not 0 < float(value) < 1000]
        if wrong:
            raise ConfigError(f"{name}: {wrong[0]} is no {name}; a number above 0 is expected")
    every = {str(value) for values in levels.values() for value in values}
    for level, weight in cfg.weights.items():
        if level not in every:
            _require_level("weights", level, sorted(every))
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"weights: {level} has {weight}; a finite number from 0 is expected")
    return levels


def _parsed(text: str, classes: Sequence[str]) -> Relation:
    """The relation written as `text`.

    Raises:
        ConfigError: it is none; the message has the nearest ones.
    """
    plain = " ".join(text.split())
    if plain == NONE:
        return Relation(NONE)
    bare, _, place = plain.partition(" in the ")
    for kind, things in (("crossed by", _COURSES), ("beside", classes), ("with", _ELEMENTS)):
        thing = bare.removeprefix(f"{kind} ")
        if bare != thing and thing in things:
            if kind == "with" and place in ("", *PLACES):
                return Relation(kind, thing, place)
            if not place:
                return Relation(kind, thing)
    known = [NONE, *(f"crossed by {name}" for name in _COURSES)]
    known += [f"beside {name}" for name in classes] + [f"with {name}" for name in _ELEMENTS]
    near = difflib.get_close_matches(bare, known, n=3) or known
    raise ConfigError(f"relation {text!r} is unknown; did you mean {', '.join(near)}?")


def _require_level(name: str, value: Label | None, known: Sequence[str]) -> None:
    if value is None or value in known:
        return
    near = difflib.get_close_matches(str(value), known, n=3) or known
    raise ConfigError(f"{name} {str(value)!r} is unknown; did you mean {', '.join(near)}?")
