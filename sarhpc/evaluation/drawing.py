"""Which images of a set are measured, and the parts in which that is done."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.evaluation.image_sets import Image, ImageSet, group_of, read_facts
from sarhpc.measures.nulls import evenly_over_groups
from sarhpc.shards.subset import spread

PART_IMAGES = 64
"""Images of a part; a few seconds of work for 512 px, and some hundred kilobytes of measures."""
REAL_PER_SYNTHETIC = 2
"""Real tiles drawn for each synthetic one: a null parts them into two sides of as many."""
_KEPT_FACTS = (
    "scene_id", "flight_line", "split", "normalisation", "band", "pixel_m", "synthetic",
    "prompt", "caption", "text",
)  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """Images of a set that were drawn."""

    images: ImageSet
    places: tuple[tuple[str, tuple[int, ...]], ...]
    """File, and rows in it, in the order of the set."""
    splits: Mapping[str, int]
    """Images of each split in the whole set, for a set that was drawn by splits."""

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self.places)


def draw_evenly(images: ImageSet, limit: int | None) -> Drawn:
    """At most `limit` images, evenly from the first to the last; None takes all."""
    count = len(images)
    numbers = range(count) if limit is None or limit >= count else spread(range(count), limit)
    return Drawn(images, _places(images, np.asarray(numbers, np.int64)), {})


def draw_real(
    images: ImageSet, synthetic: int, splits: Sequence[str], every: bool = False
) -> Drawn:
    """Real images, evenly over flight lines or else scenes: twice as many as synthetic ones.

    Those of `splits` are taken where there are any, and all otherwise. Memory holds the name of the
    group of each image.

    Args:
        images: the set.
        synthetic: how many synthetic images are compared with them.
        splits: the splits to take.
        every: take all of these splits, not only twice as many.

    Raises:
        DataError: a tar is cut short or damaged.
    """
    groups: list[str] = []
    of_split: list[str] = []
    for file in images.files:
        for image in read_facts(images, file):
            groups.append(sys.intern(group_of(image.meta)))
            of_split.append(sys.intern(str(image.meta.get("split") or "unknown")))
    wanted = {*splits} & {*of_split} or {*of_split}
    taken = np.array([n for n, split in enumerate(of_split) if split in wanted], np.int64)
    labels = [groups[number] for number in taken]
    if not every and taken.size:
        most = whole_turns(REAL_PER_SYNTHETIC * synthetic, len({*labels}))
        taken = taken[evenly_over_groups(labels, most)]
    return Drawn(images, _places(images, taken), dict(Counter(of_split)))


def whole_turns(count: int, groups: int) -> int:
    """The least number of tiles, `count` or more, of which every group may give as many."""
    return max(-(-count // groups), 1) * groups


def _places(
    images: ImageSet, numbers: NDArray[np.int64]
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    first, found = 0, []
    for file, count in zip(images.files, images.counts, strict=True):
        low, high = np.searchsorted(numbers, [first, first + count])
        if high > low:
            found.append((file, tuple((numbers[low:high] - first).tolist())))
        first += count
    return tuple(found)


def drawn_facts(drawn: Drawn) -> Iterable[Image]:
    """Yield the drawn images with metadata and the names of their members."""
    for file, rows in drawn.places:
        yield from read_facts(drawn.images, file, rows)


def parts_of(drawn: Drawn, most: int = PART_IMAGES) -> list[list[list[Any]]]:
    """The drawn images in parts of at most `most`: rows of file, rows in it, and known facts."""
    parts: list[list[list[Any]]] = [[]]
    room = most
    for file, rows in drawn.places:
        facts = {k: v for k, v in drawn.images.facts.get(file, {}).items() if k in _KEPT_FACTS}
        left = list(rows)
        while left:
            if not room:
                parts.append([])
                room = most
            here, left = left[:room], left[room:]
            parts[-1].append([file, here, facts] if facts else [file, here])
            room -= len(here)
    return parts if parts[0] else []


def require_images(drawn: Drawn, least: int) -> None:
    """Raise DataError unless there are enough images to compare.

    Raises:
        DataError: there are fewer than `least`.
    """
    if len(drawn) < least:
        count = {0: "no images", 1: "1 image"}.get(len(drawn), f"{len(drawn)} images")
        raise DataError(
            f"nothing to evaluate: {drawn.images.name} has {count}; an "
            f"evaluation needs {least}, and some hundred to say much"
        )
