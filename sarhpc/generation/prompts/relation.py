"""Relations of a scene: what crosses it, lies beside it or stands in a part of it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from hpc.errors import ConfigError
from sarhpc.generation.prompts.row import Label

NONE = "none"
PLACES = ("middle", "near range", "far range", "upper part", "lower part")
ELEMENTS = {
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
COURSES = {
    "river": ("stream", ("forest", "field", "town")),
    "road": ("road", ("forest", "field")),
    "path": ("path", ("forest", "field")),
}
"""What crosses a scene -> key of its noun, and the groups that it crosses."""


@dataclass(frozen=True)
class Relation:
    """Relation of the class of a scene to others."""

    kind: str
    """`none`, `crossed by`, `beside` or `with`."""
    thing: str = ""
    place: str = ""

    @property
    def text(self) -> str:
        """As it is written in a configuration."""
        place = f" in the {self.place}" if self.place else ""
        return f"{self.kind} {self.thing}{place}".strip()


def parse_relation(text: str, classes: Sequence[str]) -> Relation:
    """The relation written as `text`.

    Raises:
        ConfigError: it is none; the message has the nearest ones.
    """
    plain = " ".join(text.split())
    if plain == NONE:
        return Relation(NONE)
    bare, _, place = plain.partition(" in the ")
    for kind, things in (("crossed by", COURSES), ("beside", classes), ("with", ELEMENTS)):
        thing = bare.removeprefix(f"{kind} ")
        if bare != thing and thing in things:
            if kind == "with" and place in ("", *PLACES):
                return Relation(kind, thing, place)
            if not place:
                return Relation(kind, thing)
    known = [NONE, *(f"crossed by {name}" for name in COURSES)]
    known += [f"beside {name}" for name in classes] + [f"with {name}" for name in ELEMENTS]
    near = difflib.get_close_matches(bare, known, n=3) or known
    raise ConfigError(f"relation {text!r} is unknown; did you mean {', '.join(near)}?")


def require_level(name: str, value: Label | None, known: Sequence[str]) -> None:
    """Raise ConfigError with the nearest levels unless a level of the field `name` is known."""
    if value is None or value in known:
        return
    near = difflib.get_close_matches(str(value), known, n=3) or known
    raise ConfigError(f"{name} {str(value)!r} is unknown; did you mean {', '.join(near)}?")
