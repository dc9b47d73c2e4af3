"""Words of captions that say where in the image something lies, and what exchanging them gives."""

from __future__ import annotations

import re
from collections.abc import Mapping

RELATIONS: Mapping[str, tuple[str, str]] = {
    "range": ("near range", "far range"),
    "left and right": ("left", "right"),
    "upper and lower": ("upper", "lower"),
}
"""Relation -> the two words or phrases that it exchanges."""


def swapped(caption: str, pair: tuple[str, str]) -> str | None:
    """The caption with both sides of a relation exchanged; None where it names neither."""
    one, other = pair
    pattern = re.compile(rf"\b({re.escape(one)}|{re.escape(other)})\b", re.IGNORECASE)
    if not pattern.search(caption):
        return None
    return pattern.sub(lambda m: other if m.group(0).lower() == one else one, caption)


def exchanges(caption: str) -> list[str]:
    """The caption with each relation exchanged that it names, one at a time.

    >>> exchanges("a lake in the upper part and trees in the near range")[0]
    'a lake in the upper part and trees in the far range'
    """
    found = (swapped(caption, pair) for pair in RELATIONS.values())
    return [text for text in found if text is not None]
