"""Labelled images of a set: the class that each names, its split and its scene."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sarhpc.evaluation.caption_content import text_beside
from sarhpc.evaluation.drawing import Drawn, draw_evenly
from sarhpc.evaluation.image_sets import (
    Image,
    ImageSet,
    folders_below,
    group_of,
    read_facts,
    read_images,
    split_of_folders,
)

LAND_COVER = "landcover.npy"
"""Member with the class of each pixel; code 0 is none."""
NAMING = ("class", "label")
"""Keys of metadata that name the class of an image."""
_TEXTS = ("txt", "caption")

ClassOf = Callable[[Mapping[str, Any]], str | None]
"""Class that metadata name in a way of this project, or None."""


@dataclass(frozen=True)
class Labelled:
    """One image whose class, or whose land cover, is known; not read yet."""

    file: str
    row: int
    label: str
    """Empty where every pixel has one of its own."""
    group: str
    """Flight line, else scene; empty where it is not known."""
    split: str
    """`train`, `val`, `test`, or empty where it is not known."""


@dataclass(frozen=True)
class LabelledSet:
    """The labelled images of a set, of those that were asked, and how many have no label."""

    images: ImageSet
    labelled: tuple[Labelled, ...]
    unlabelled: int
    flips: bool
    """Whether range is along columns in every image, so that an azimuth flip is an image too."""

    @property
    def classes(self) -> list[str]:
        """The classes there are, sorted."""
        return sorted({one.label for one in self.labelled})


def labelled_images(
    images: ImageSet, class_of: ClassOf, classes: Sequence[str], most: int, *, per_pixel: bool
) -> LabelledSet:
    """The images of a set that have a label; no pixel is read.

    Args:
        images: the set.
        class_of: what metadata of this project say, asked before their keys and folders.
        most: images that are asked, evenly from the first to the last.
        classes: only these; where an image names none, the one that its caption has a word of.
        per_pixel: whether a label is the land cover of the pixels, and not a class.

    Raises:
        DataError: a tar is cut short or damaged.
    """
    found: list[Labelled] = []
    flips, asked = True, 0
    for image in _described(draw_evenly(images, most)):
        asked += 1
        split, folder = _folders(images, image.file)
        label = _label(image, class_of, classes, folder) if not per_pixel else _plane(image)
        if label is None:
            continue
        flips = flips and str(image.meta.get("range_direction", "")).endswith("col")
        split = str(image.meta.get("split") or split)
        found.append(Labelled(image.file, image.row, label, group_of(image.meta), split))
    return LabelledSet(images, tuple(found), asked - len(found), flips and bool(found))


def missing_labels(images: LabelledSet, classes: Sequence[str], *, per_pixel: bool) -> str:
    """Why nothing can be learned from a set without labels, and what to do."""
    name = images.images.name
    if per_pixel:
        return (
            f"no image of {name} has its land cover ({LAND_COVER}): give a set with it, or "
            "evaluate.use.task=classification"
        )
    if classes:
        return f"no image of {name} names one of {', '.join(classes)}, nor does any caption"
    return (
        f"no image of {name} names its class: give a folder of one subfolder for each class, "
        "`class` in its metadata, or words of its captions in evaluate.use.classes"
    )


def _described(drawn: Drawn) -> Iterator[Image]:
    """Yield the drawn images with metadata and caption."""
    for file, rows in drawn.places:
        if file.endswith(".tar"):
            yield from read_images(drawn.images, file, rows, _texts)
        else:
            yield from read_facts(drawn.images, file)


def _texts(names: Collection[str]) -> list[str]:
    return [name for name in _TEXTS if name in names]


def _folders(images: ImageSet, file: str) -> tuple[str, str | None]:
    """Split and class that folders name, of an image that is a file of its own."""
    parts = folders_below(images, file)
    split = split_of_folders(parts)
    rest = parts[1:] if split else parts
    return split, rest[0] if rest else None


def _plane(image: Image) -> str | None:
    return "" if LAND_COVER in image.members else None


def _label(
    image: Image, class_of: ClassOf, classes: Sequence[str], folder: str | None
) -> str | None:
    meta = image.meta
    named = (class_of(meta), *(meta.get(key) for key in NAMING), folder)
    label = next((name for name in named if isinstance(name, str) and name), None)
    if not classes or label in classes:
        return label
    return _of_caption(image, classes)


def _of_caption(image: Image, classes: Sequence[str]) -> str | None:
    """The one class that the caption has as a word; None if it has none or several."""
    caption = image.meta.get("caption")
    texts = [image.members.get(name, b"").decode(errors="replace") for name in _TEXTS]
    texts += [str(image.meta.get("text") or ""), str(image.meta.get("prompt") or "")]
    texts += [str(text) for text in caption.values()] if isinstance(caption, Mapping) else []
    text = next(filter(None, texts), "") or text_beside(image.file)
    words = Counter(
        name for name in classes if re.search(rf"\b{re.escape(name)}\b", text, re.IGNORECASE)
    )
    return next(iter(words)) if len(words) == 1 else None
