"""What a caption says of an image: its class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sarhpc.evaluation.image_sets import Image

_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)
_CROSSES = re.compile(r"\bcross(?:es|ing)?\b", re.IGNORECASE)
_MIXED = re.compile(r"\b(?:beside|next to)\b", re.IGNORECASE)

Phrases = Mapping[str, Sequence[str]]
"""Class -> phrases that name it."""


def caption_of(image: Image) -> str | None:
    """Caption of an image: its `txt`, else what its metadata or a file beside it say, else None."""
    text = image.members.get("txt", b"").decode("utf-8", "replace").strip()
    if text:
        return text
    lengths = image.meta.get("caption")
    said = lengths.get("SHORT") if isinstance(lengths, Mapping) else lengths
    for found in (image.meta.get("prompt"), said, image.meta.get("text")):
        if isinstance(found, str) and found.strip():
            return found.strip()
    return text_beside(image.file) or None


def text_beside(file: str) -> str:
    """Text of the `.txt` or `.caption` beside an image that is a file of its own; empty without."""
    if file.endswith(".tar"):
        return ""
    beside = (Path(file).with_suffix(ending) for ending in (".txt", ".caption"))
    texts = (path.read_text("utf-8", "replace").strip() for path in beside if path.is_file())
    return next(filter(None, texts), "")


def class_of(caption: str, classes: Phrases) -> str | None:
    """The class that a caption names as its main one; None where it names none, or two alike.

    It is the first that is named, but what "a road crosses a forest" is about is the forest.
    "A forest beside a lake" is about both, and of no class.
    """
    named = _named(caption, classes)
    if not named:
        return None
    crosses = _CROSSES.search(caption)
    if crosses:
        return next((name for at, name in named if at > crosses.start()), named[0][1])
    return None if names_two(caption, classes) else named[0][1]


def names_two(caption: str, classes: Phrases) -> bool:
    """Whether a caption is about two classes alike, as "a forest beside a lake"."""
    if not _MIXED.search(caption):
        return False
    return len({name for _, name in _named(caption, classes)[:2]}) > 1


def _named(caption: str, classes: Phrases) -> list[tuple[int, str]]:
    """Place and class of everything that is named, in order; the longest phrase at a place."""
    found: dict[int, tuple[int, str]] = {}
    for name, phrases in classes.items():
        for phrase in phrases:
            bare = re.escape(_ARTICLE.sub("", phrase.strip()))
            for match in re.finditer(rf"\b{bare}(?:s|es)?\b", caption, re.IGNORECASE):
                length = match.end() - match.start()
                if length > found.get(match.start(), (0, ""))[0]:
                    found[match.start()] = (length, name)
    return [(at, found[at][1]) for at in sorted(found)]
