"""Several caption sets as one: every image once, in the shares that their weights say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sarhpc.captioning.config import CaptionSetConfig
from sarhpc.captioning.tuning.datasets import CaptionedImage, open_set
from sarhpc.captioning.tuning.published import LAYOUTS, require_sets
from sarhpc.shards.loader import SampleOrder


@dataclass(frozen=True)
class SetCounts:
    """What a set brought, and what of it stands elsewhere."""

    name: str
    split: str
    weight: float
    images: int
    """Images that remain."""
    captions: int
    """Different captions of those images."""
    repeated: int = 0
    """Images that an earlier set has, too: they count there."""
    held_out: int = 0
    """Images of a training set that another set holds out."""


@dataclass(frozen=True)
class ImageSet:
    """One set of captioned images without the images of the others."""

    counts: SetCounts
    images: tuple[CaptionedImage, ...]


def join_sets(
    train: Sequence[CaptionSetConfig], val: Sequence[CaptionSetConfig], readers: int = 2
) -> tuple[list[ImageSet], list[ImageSet]]:
    """The sets learnt from and those held out, without images that two datasets share.

    Images are compared by their decoded pixels, and only between datasets: what one publishes
    twice, or in two splits, stays. Of an image in two training sets the first keeps it, with the
    captions of both. No captions are added to held-out images, whose published scores count on
    their own.

    Raises:
        ConfigError: the settings of a set cannot be right (`require_sets`).
        DataError: a set cannot be read.
    """
    require_sets([*train, *val])
    names = _names([*train, *val])
    opened = [
        _Opened(cfg, name, open_set(cfg)) for cfg, name in zip([*train, *val], names, strict=True)
    ]
    learnt, held = opened[: len(train)], opened[len(train) :]
    if len({one.dataset for one in opened}) > 1:
        with ThreadPoolExecutor(readers) as pool:
            for one in opened:
                one.digests = list(pool.map(_pixel_digest, one.images))
        _drop_repeated(held, merge=False)
        _drop_held_out(learnt, held)
        _drop_repeated(learnt, merge=True)
    return [one.close() for one in learnt], [one.close() for one in held]


@dataclass
class _Opened:
    """A set while it is compared with the others."""

    cfg: CaptionSetConfig
    name: str
    images: list[CaptionedImage]
    digests: Sequence[bytes] = ()
    repeated: int = 0
    held_out: int = 0

    @property
    def dataset(self) -> tuple[str, str]:
        """What tells datasets apart, whichever split is taken."""
        return self.cfg.kind, self.cfg.path

    def keep(self, rows: Sequence[int]) -> int:
        """Keep these images alone; returns how many went."""
        gone = len(self.images) - len(rows)
        self.images = [self.images[row] for row in rows]
        self.digests = [self.digests[row] for row in rows]
        return gone

    def close(self) -> ImageSet:
        """The set as it is now."""
        counts = SetCounts(
            self.name,
            self.cfg.split,
            self.cfg.weight,
            len(self.images),
            sum(len(image.distinct) for image in self.images),
            self.repeated,
            self.held_out,
        )
        return ImageSet(counts, tuple(self.images))


def _drop_repeated(sets: Sequence[_Opened], *, merge: bool) -> None:
    """Take images out of `sets` that one of another dataset before them has."""
    first: dict[bytes, tuple[_Opened, int]] = {}
    for one in sets:
        rows = []
        for row, digest in enumerate(one.digests):
            owner, at = first.get(digest, (one, row))
            if owner.dataset == one.dataset:
                rows.append(row)
            elif merge:
                image = owner.images[at]
                captions = (*image.captions, *one.images[row].captions)
                owner.images[at] = replace(image, captions=captions)
        one.repeated = one.keep(rows)
        for at, digest in enumerate(one.digests):
            first.setdefault(digest, (one, at))


def _drop_held_out(learnt: Iterable[_Opened], held: Iterable[_Opened]) -> None:
    """Take images out of sets learnt from that another dataset holds out."""
    owners: dict[bytes, set[tuple[str, str]]] = {}
    for one in held:
        for digest in one.digests:
            owners.setdefault(digest, set()).add(one.dataset)
    for one in learnt:
        rows = [
            row
            for row, digest in enumerate(one.digests)
            if not owners.get(digest, set()) - {one.dataset}
        ]
        one.held_out = one.keep(rows)


def _pixel_digest(image: CaptionedImage) -> bytes:
    pixels = image.read()
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()


def _names(sets: Sequence[CaptionSetConfig]) -> list[str]:
    """A name for each set; other datasets of the same name are numbered."""
    known: dict[str, list[tuple[str, str]]] = {}
    names = []
    for cfg in sets:
        name = cfg.name or (cfg.kind if cfg.kind in LAYOUTS else Path(cfg.path).name.split(".")[0])
        datasets = known.setdefault(name, [])
        if (cfg.kind, cfg.path) not in datasets:
            datasets.append((cfg.kind, cfg.path))
        number = datasets.index((cfg.kind, cfg.path)) + 1
        names.append(name if number == 1 else f"{name}-{number}")
    return names


def concatenate(sets: Iterable[ImageSet]) -> list[CaptionedImage]:
    """The images of all sets, one set after the other."""
    return [image for one in sets for image in one.images]


@dataclass(frozen=True)
class MixedOrder(SampleOrder):
    """Rows of several sets laid end to end, each as often in an epoch as its weight says.

    A set of `sizes` images gives `takes` rows to every epoch and goes on in the next where it
    stopped, so that a weight below 1 leaves none out for good. Weights of 1 give the order of
    `SampleOrder`.
    """

    sizes: tuple[int, ...] = ()
    takes: tuple[int, ...] = ()

    def epoch(self, epoch: int) -> NDArray[np.int64]:
        """Rows (n,) in the order of epoch `epoch`."""
        starts = np.cumsum((0, *self.sizes))
        shown = [
            start + (epoch * take + np.arange(take)) % size
            for start, size, take in zip(starts, self.sizes, self.takes, strict=False)
        ]
        return np.concatenate(shown)[super().epoch(epoch)]


def mixed_order(sets: Sequence[ImageSet], seed: int) -> MixedOrder:
    """The order in which the images of `concatenate(sets)` are learnt from."""
    filled = [one.counts for one in sets if one.counts.images]
    sizes = tuple(counts.images for counts in filled)
    takes = tuple(max(1, round(counts.images * counts.weight)) for counts in filled)
    return MixedOrder(seed, sum(takes), sizes, takes)
