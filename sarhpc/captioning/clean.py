"""Cleaning of raw captions for a template, and detection of degenerate ones."""

from __future__ import annotations

import re
from collections.abc import Sequence

_LONGEST_LOOP = 4
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=\S)")


def clean(caption: str, openings: Sequence[str] = ()) -> str:
    """`caption` on one line, closed up before punctuation, without `openings` and final stop.

    "there is a piece of farmland ." becomes "a piece of farmland".
    """
    text = re.sub(r"\s+([,.;:!?])", r"\1", " ".join(caption.split())).rstrip(" .;,")
    for opening in openings:
        rest = re.match(rf"{re.escape(opening)}\s+(?=\S)", text, re.IGNORECASE)
        if rest:
            return text[rest.end() :]
    return text


def sentences(caption: str) -> list[str]:
    """Sentences of a caption without their final stops, empty ones left out."""
    closed = re.sub(r"\s+([.!?])", r"\1", " ".join(caption.split()))
    parts = (part.rstrip(" .") for part in _SENTENCE_END.split(closed))
    return [part for part in parts if part]


def degeneracy(caption: str, min_words: int, max_repeats: int) -> str | None:
    """Why `caption` is no caption: `caption_empty`, `caption_short`, `caption_loop`; None if it is.

    A loop is a phrase of one to four words said more than `max_repeats` times in a row, as a BLIP
    whose image size and weights do not belong together says "dai dai dai".
    """
    words = re.findall(r"\w+", caption.lower())
    if not words:
        return "caption_empty"
    if _loops(words, max_repeats):
        return "caption_loop"
    return "caption_short" if len(words) < min_words else None


def _loops(words: Sequence[str], max_repeats: int) -> bool:
    for length in range(1, _LONGEST_LOOP + 1):
        run = 0
        for here, ahead in zip(words, words[length:], strict=False):
            run = run + 1 if here == ahead else 0
            # `run` equal words at this distance are run / length repetitions after the first.
            if run >= length * max_repeats:
                return True
    return False
