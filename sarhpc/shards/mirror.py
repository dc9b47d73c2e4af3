"""Captions of tiles flipped along azimuth: the words for places in the image change sides.

Rows run along azimuth, so a flip swaps top and bottom and leaves left and right, near and far.
Where north lies in a tile a caption does not say: one that names it, or that uses such a word of
something else than the image, has no mirror image, and its tile is not flipped.
"""

from __future__ import annotations

import re

_SIDES = {"top": "bottom", "upper": "lower", "above": "below"}
_SWAPPED = {**_SIDES, **{lower: upper for upper, lower in _SIDES.items()}}

_PART = "part|half|side|corner|edge|third|quarter|section|area|portion|end|left|right|centre|center"
_IMAGE = "image|picture|photo|photograph|scene|tile|frame|view"
_PLACE = re.compile(
    # "upper part", "top left"
    rf"\b(?:top|bottom|upper|lower)(?=[ -](?:{_PART})s?\b)"
    # "at the top, a lake", "the bottom of the image"
    rf"|(?<=\bthe )(?:top|bottom)(?= of (?:the|this) (?:{_IMAGE})\b"
    r"| and\b| or\b| is\b| are\b|\W*$|[,;:.])"
    # "a road below the forest", but not "seen from above"
    r"|(?<!from )\b(?:above|below)\b",
    re.IGNORECASE,
)
# Words whose mirror image is unsure ("the top of the hill", "lower buildings") or unknown.
_UNSURE = re.compile(
    r"\b(?:top|bottom|upper|lower|topmost|uppermost|lowermost)\b|\b(?:north|south|east|west)",
    re.IGNORECASE,
)


def mirrored(caption: str) -> str | None:
    """The caption of the tile flipped along azimuth (rows), or None where that is not sure.

    >>> mirrored("A lake in the upper left, a road below the forest")
    'A lake in the lower left, a road above the forest'
    >>> mirrored("A road to the north of a lake") is None
    True
    """
    if _UNSURE.search(_PLACE.sub("", caption)):
        return None
    return _PLACE.sub(lambda found: _other_side(found.group()), caption)


def _other_side(word: str) -> str:
    other = _SWAPPED[word.lower()]
    return other.capitalize() if word[0].isupper() else other
