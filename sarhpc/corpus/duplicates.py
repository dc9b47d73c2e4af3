"""Images of a corpus that repeat others, over the bounds of shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hpc.errors import DataError
from sarhpc.corpus.rows import IMAGE_CODE
from sarhpc.measures.near_duplicates import DuplicateIndex, ImageCode

MOST_COMPARED = 200_000
"""Images that later ones are compared with: a minute of one core for so many, and as much for each
hundred thousand after them."""


def flagging(
    rows: Iterable[Mapping[str, Any]], most_bits: int | None, compared: int = MOST_COMPARED
) -> Iterator[Mapping[str, Any]]:
    """Yield the rows, each with `near_duplicate_of`: key of the first image that it repeats.

    Args:
        rows: in order, with the code of their image; those without one repeat nothing.
        most_bits: in which near duplicates differ at most; None compares nothing.
        compared: images from the first one on that others are compared with.

    Raises:
        DataError: a code cannot be read.
    """
    if most_bits is None:
        yield from rows
        return
    index = DuplicateIndex(compared)
    keys: list[str] = []
    for row in rows:
        code = _code(row)
        found = None if code is None else index.find_code(code)
        repeats = found is not None and found[1] <= most_bits
        yield {**row, "near_duplicate_of": keys[found[0]] if found and repeats else None}
        if code is not None and not repeats and len(index) < compared:
            index.add_code(code)
            keys.append(row["key"])


def _code(row: Mapping[str, Any]) -> ImageCode | None:
    text = row.get(IMAGE_CODE)
    try:
        return None if text is None else ImageCode.from_text(text)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"sample {row['key']} of {row['shard']} has a damaged code in `gate` ({error}): make "
            "its shard again"
        ) from error
