"""The grammar of prompts: fields of a scene, and the description that states them.

Descriptions use the nouns of ground-truth captions, so that a model is asked for scenes in the
words that it was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpc.errors import ConfigError
from sarhpc.generation.prompts.relation import (
    COURSES,
    ELEMENTS,
    NONE,
    Relation,
    parse_relation,
    require_level,
)
from sarhpc.generation.prompts.row import Label

Nouns = Mapping[str, Sequence[str]]
"""Phrases by the key of their meaning."""

FIELDS = ("class", "density", "relation", "season", "band", "spacing_m", "incidence_deg")
"""Fields of the grammar, and names of their labels."""
CONDITIONS = ("band", "spacing_m", "incidence_deg")
"""Fields that the caption template states, not the description."""
SEASONS = ("winter", "spring", "summer", "autumn")
DENSITIES = ("dense", "medium", "open")


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
        relation = parse_relation(str(fields.get("relation", NONE)), self.classes)
        if not self.goes_with(name, relation):
            raise ConfigError(f"class {name} cannot be {relation.text}: leave the combination out")
        season = fields.get("season")
        require_level("season", season, SEASONS)
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
            return group in COURSES[relation.thing][1]
        if relation.kind == "beside":
            return land_cover_of(relation.thing) != group
        if relation.thing == "clearing":
            return group == "forest"
        return ELEMENTS[relation.thing][1] != group

    def _class(self, fields: Mapping[str, Label]) -> str:
        require_level("class", fields.get("class", ""), self.classes)
        return str(fields["class"])

    def _heads(self, name: str, density: Label | None) -> list[str]:
        if name in self.phrases:
            if density is not None:
                raise ConfigError(f"class {name} of phrases has no density: leave it out")
            return list(self.phrases[name])
        require_level("density", density, DENSITIES)
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
            others = list(self.nouns[COURSES[relation.thing][0]])
        else:
            others = list(self.nouns[ELEMENTS[relation.thing][0]])
        noun = others[number % len(others)]
        place = f" in the {relation.place}" if relation.place else ""
        link = "and" if relation.kind == "with" and "with" in head.split() else relation.kind
        return f"{head} {link} {noun}{place}"
