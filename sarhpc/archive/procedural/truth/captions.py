"""Ground-truth captions: short sentences that describe a tile of known land cover."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.archive.procedural.truth.composition import (
    Fact,
    Group,
    Window,
    class_fractions,
    courses_across,
    dominant_class,
    group_fractions,
    objects_within,
    open_share,
    patch,
)
from sarhpc.archive.procedural.truth.phrases import NOUNS, vocabulary

__all__ = ["Truth", "describe", "dominant_class", "vocabulary"]


@dataclass(frozen=True)
class Truth:
    """Ground truth of a tile: caption, shares and relations."""

    caption: str
    class_fractions: dict[str, float]
    """Share of each class by name."""
    relations: tuple[str, ...]
    """Relations as short sentences, for captions of more words."""
    facts: tuple[Fact, ...]
    """The same as (subject, relation, object)."""
    dominant: Group | None
    """Class that dominates the tile, of the four of evaluation."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, for a sample's metadata."""
        value = asdict(self)
        value["relations"] = list(self.relations)
        value["facts"] = [list(fact) for fact in self.facts]
        return value


@dataclass(frozen=True)
class _Element:
    """A secondary fact: the key of its noun, and its relation to the main group."""

    key: str
    subject: str
    relation: str
    """`crosses`, `in` a part of the tile, `within` (surrounded), or `with`."""
    where: str = ""


def describe(
    label: NDArray[np.uint8],
    objects: Sequence[Mapping[str, Any]] = (),
    *,
    window: Window | None = None,
    seed: int | None = None,
) -> Truth:
    """Caption, class fractions and relations of a tile.

    Args:
        label: land-cover codes (H, W), near range at column 0.
        objects: object list of the scene (`sarhpc:objects`), in scene pixels.
        window: first row, first column, rows, columns of the tile in scene pixels; by default
            the label starts at the scene's first pixel and has its spacing.
        seed: chooses among phrases; by default the label's own bytes do.

    Raises:
        DataError: no pixel of the tile is labelled.
    """
    fractions = class_fractions(label)
    if not fractions:
        raise DataError("no pixel of the tile has a label: reject it, or check the label asset")
    place = window or (0.0, 0.0, float(label.shape[0]), float(label.shape[1]))
    tile = _Tile(label, fractions, group_fractions(fractions), objects, place)
    rng = _phrase_stream(label, seed)
    dominant = dominant_class(fractions)
    main, second = tile.largest()
    elements = _elements(tile, dominant or main)
    facts = [_fact(element, dominant or main) for element in elements]
    if dominant is None and tile.groups[second] > 0.15:
        elements = [e for e in elements if e.subject not in _SUBJECTS[second]]
        facts = [(second, "beside", main), *(_fact(element, main) for element in elements)]
        head = _beside(rng, _head(tile, main), _head(tile, second))
    else:
        head = _pick(rng, _head(tile, dominant or main))
    caption = _sentence(rng, head, elements[:2], mixed=dominant is None)
    return Truth(caption, fractions, tuple(map(_spoken, facts)), tuple(facts), dominant)


@dataclass(frozen=True)
class _Tile:
    """Facts about a tile before words are chosen."""

    label: NDArray[np.uint8]
    fractions: Mapping[str, float]
    groups: Mapping[Group, float]
    objects: Sequence[Mapping[str, Any]]
    window: Window

    def largest(self) -> tuple[Group, Group]:
        """The two groups that cover most."""
        first, second, *_ = sorted(self.groups, key=lambda group: -self.groups[group])
        return first, second

    def crossed_by(self, kind: str) -> bool:
        """Whether a course of `kind` runs right across."""
        return bool(courses_across(self.objects, kind, self.window))

    def buildings(self) -> list[Mapping[str, Any]]:
        """Buildings that stand in the tile."""
        return objects_within(self.objects, "building", self.window)


_SUBJECTS: dict[Group, tuple[str, ...]] = {
    "water": ("lake", "pond", "river"),
    "forest": ("forest", "trees"),
    "field": ("clearing", "field"),
    "town": ("village", "houses", "house"),
}


def _phrase_stream(label: NDArray[np.uint8], seed: int | None) -> np.random.Generator:
    if seed is None:
        digest = hashlib.sha256(np.ascontiguousarray(label).tobytes()).digest()
        seed = int.from_bytes(digest[:8], "little")
    return np.random.Generator(np.random.Philox(key=seed))


def _pick(rng: np.random.Generator, key: str) -> str:
    phrases = NOUNS[key]
    return phrases[int(rng.integers(len(phrases)))]


def _head(tile: _Tile, group: Group) -> str:
    """Key of the noun that fits a group that covers much."""
    if group == "water":
        return "river" if tile.crossed_by("river") else "water"
    if group == "forest":
        share = tile.groups["forest"]
        return "dense forest" if share > 0.88 else "forest" if share > 0.72 else "open forest"
    if group == "field":
        names = ("crop", "grass", "bare", "shrub")
        return max(names, key=lambda name: tile.fractions.get(name, 0.0))
    houses = tile.buildings()
    if houses and np.median([house["length_m"] for house in houses]) > 22:
        return "halls"
    return "dense town" if tile.fractions.get("urban", 0.0) > 0.36 else "town"


def _elements(tile: _Tile, main: Group) -> list[_Element]:
    """Facts beside the main group, the most informative first."""
    found = _courses(tile, main)
    rivers = any(element.subject == "river" for element in found)
    others: list[Group] = ["water", "town", "forest"]
    if main == "forest":
        others.append("field")
    for group in others:
        if group == main or (group == "water" and rivers):
            continue
        named = _side_noun(tile, group)
        if named is None:
            continue
        key, subject = named
        here = patch(tile.label, group)
        if here.sides == 0 and here.share > 0.02 and key != "trees":
            found.append(_Element(key, subject, "within", main))
        elif here.place is not None:
            found.append(_Element(key, subject, "in", here.place))
        else:
            found.append(_Element(key, subject, "with"))
    return found


def _courses(tile: _Tile, main: Group) -> list[_Element]:
    """Rivers, roads and paths that cross the tile."""
    share = tile.fractions.get
    found = []
    if main != "water" and share("water", 0.0) > 0.015 and tile.crossed_by("river"):
        found.append(_Element("stream", "river", "crosses", main))
    if main in ("forest", "field") and share("road", 0.0) > 0.01 and tile.crossed_by("road"):
        found.append(_Element("road", "road", "crosses", main))
    if main in ("forest", "field") and tile.crossed_by("path"):
        found.append(_Element("path", "path", "crosses", main))
    return found


def _side_noun(tile: _Tile, group: Group) -> tuple[str, str] | None:
    """Key of the noun and the subject of a group beside the main one; None = negligible."""
    share = tile.groups[group]
    if group == "water" and share > 0.012:
        return ("pond", "pond") if share < 0.08 else ("some water", "lake")
    if group == "town":
        roofs, houses = tile.fractions.get("urban", 0.0), len(tile.buildings())
        if roofs > 0.12:
            return "village", "village"
        if roofs > 0.004 and houses:
            return ("house", "house") if houses == 1 else ("houses", "houses")
    if group == "forest" and share > 0.004:
        return ("some forest", "forest") if share > 0.1 else ("trees", "trees")
    if group == "field" and open_share(tile.label, group) > 0.04:
        return ("clearing", "clearing") if share < 0.3 else ("some field", "field")
    return None


def _sentence(
    rng: np.random.Generator, head: str, elements: Sequence[_Element], *, mixed: bool
) -> str:
    """A sentence about the main group and at most two other facts."""
    if not elements:
        return head
    first, rest = elements[0], list(elements[1:])
    if first.relation == "crosses" and not mixed:
        form = rng.integers(3)
        noun = _pick(rng, first.key)
        text = (
            f"{noun} crosses {head}",
            f"{noun} that crosses {head}",
            f"{head} crossed by {noun}",
        )[form]
        return _joined(text, [_clause(rng, element) for element in rest], "with")
    if first.key == "clearing" and first.relation != "with" and rng.random() < 0.6:
        text = f"{head} around {_pick(rng, 'clearing')}"
        return _joined(text, [_clause(rng, element) for element in rest], "with")
    link = "and" if mixed else "with"
    if "with" in head.split():
        link = "and"
    return _joined(head, [_clause(rng, element) for element in elements], link)


def _joined(text: str, clauses: list[str], link: str) -> str:
    if not clauses:
        return text
    return f"{text} {link} " + " and ".join(clauses)


def _clause(rng: np.random.Generator, element: _Element) -> str:
    noun = _pick(rng, element.key)
    if element.relation == "in":
        return f"{noun} in the {element.where}"
    if element.relation == "within":
        return f"{noun} in the middle"
    return noun


def _beside(rng: np.random.Generator, first: str, second: str) -> str:
    link = ("beside", "next to", "and")[int(rng.integers(3))]
    return f"{_pick(rng, first)} {link} {_pick(rng, second)}"


def _fact(element: _Element, main: Group) -> Fact:
    if element.relation == "in":
        return (element.subject, "in", element.where)
    if element.relation == "within":
        return (element.subject, "surrounded by", main)
    return (element.subject, "crosses" if element.relation == "crosses" else "in", main)


def _spoken(fact: Fact) -> str:
    """A fact as a short sentence."""
    subject, relation, thing = fact
    plural = subject in ("trees", "houses")
    verb = ("lie" if plural else "lies") if relation != "crosses" else "crosses"
    article = "" if plural or subject == "water" else "a "
    place = relation if relation != "crosses" else ""
    return " ".join(f"{article}{subject} {verb} {place} the {thing}".split())
