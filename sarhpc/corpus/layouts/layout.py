"""What a layout is: names and bytes of the files that it makes of images."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sarhpc.corpus.reading import IndexedImage, Row

UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class Layout:
    """A layout of exported corpora."""

    name: str
    summary: str
    """What it is for, one line."""
    write_shard: Callable[[Path, str, Iterable[IndexedImage]], int]
    """Write images of a shard below a folder, files that are there excepted, and return their
    number: (folder, name of the shard, images). Where images share files, they are of one split."""
    about: str
    """Paragraphs of its README.md on how the files are laid out and read."""
    bytes_of: Callable[[Row], float]
    """About how many bytes the image of a row becomes."""
    files_per_image: int = 1
    """0 where the images of a shard and split share one file."""
    check: Callable[[Row], None] | None = None
    """Raise DataError for the row of an image that cannot be written so, before any is."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What else decides the bytes, recorded with the export."""
    front_matter: Callable[[Path], Mapping[str, Any]] | None = None
    """YAML header of the README.md by which `datasets` finds the images, if it needs one."""
    finish: Callable[[Path, Iterator[Row]], None] | None = None
    """Write what comes after the images: (folder, rows of all that were exported)."""


def image_path(row: Row, suffix: str) -> PurePosixPath:
    """`split/label/shard/key.suffix`: folders by class, with no more files than a shard has."""
    label = re.sub(r"[^A-Za-z0-9._-]+", "_", row["label"] or "").strip("._") or UNLABELLED
    stem = PurePosixPath(row["shard"]).stem
    return PurePosixPath(row["split"], label, stem, f"{row['key']}.{suffix}")


def pixels_of(row: Row) -> int:
    """Number of pixels of an image; that of 512 x 512 px for an index of version 0.1."""
    return int(row["width_px"] or 512) * int(row["height_px"] or 512)


def known(values: dict[str, Any]) -> dict[str, Any]:
    """The entries that are not None."""
    return {name: value for name, value in values.items() if value is not None}
