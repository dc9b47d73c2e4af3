"""Exporting a corpus to another layout, file by file, so that an interrupted export goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hpc.documents import read_json
from hpc.errors import ConfigError, TransientError
from hpc.publish import digest_file, publish_json, publish_text
from sarhpc.corpus.index import INDEX
from sarhpc.corpus.layouts.cog import COG, COG_DB
from sarhpc.corpus.layouts.imagefolder import IMAGEFOLDER
from sarhpc.corpus.layouts.layout import Layout
from sarhpc.corpus.layouts.sarlo80 import SARLO80
from sarhpc.corpus.reading import (
    IndexedImage,
    Row,
    corpus_rows,
    rows_by_shard,
    shard_images,
)
from sarhpc.shards.sample import SPLITS

LAYOUTS = {layout.name: layout for layout in (IMAGEFOLDER, COG, COG_DB, SARLO80)}
MARKER = "export.json"
SCHEMA = "sarhpc.export/1"


@dataclass(frozen=True)
class Export:
    """A finished export."""

    out: Path
    images: int
    already: bool
    """Whether it was finished before and nothing was done."""


def export_corpus(root: Path, out: Path, layout: Layout, splits: Sequence[str] = SPLITS) -> Export:
    """Write the images of the corpus in `root` to `out` in another layout.

    Each file appears whole or not at all; the same call goes on where an interrupted one ended.
    `export.json` says of what the folder is an export, and whether it is complete.

    Args:
        root: folder with `index.parquet` and the shards.
        out: new or empty folder, or one of an export that was interrupted.
        layout: one of `LAYOUTS`.
        splits: which to export.

    Raises:
        ConfigError: `out` holds something else, or is inside of `root`.
        DataError: `root` is no corpus, or a shard of it is damaged.
        VerificationError: an image is not the one that was indexed.
        TransientError: the disk has or had too little space; what was written stays.
    """
    unknown = [split for split in splits if split not in SPLITS]
    if unknown or not splits:
        raise ConfigError(f"split {', '.join(unknown)}: one of {', '.join(SPLITS)}")
    if out.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"{out} is inside of the corpus {root}: name a folder elsewhere")
    marker = {
        "schema": SCHEMA,
        "layout": layout.name,
        "corpus": digest_file(root / INDEX).sha256 if (root / INDEX).is_file() else None,
        "splits": sorted(splits),
        "options": dict(layout.options),
    }
    expected = _needed(layout, chosen_rows(root, splits))
    found = _found(out, marker)
    if found is not None and found.get("complete") and isinstance(found.get("images"), int):
        return Export(out, found["images"], already=True)
    if found is None:
        _require_space(out, *expected)
        publish_json(out / MARKER, marker)
    images = sum(
        layout.write_shard(out, name, _images(root, name, rows, part))
        for name, rows in rows_by_shard(root)
        for part in ([splits] if layout.files_per_image else [[split] for split in splits])
    )
    if layout.finish is not None:
        layout.finish(out, chosen_rows(root, splits))
    publish_text(out / "README.md", _readme(layout, images, out))
    publish_json(out / MARKER, {**marker, "complete": True, "images": images})
    return Export(out, images, already=False)


def chosen_rows(root: Path, splits: Sequence[str]) -> Iterator[Row]:
    """Rows of the images that are exported.

    Raises:
        DataError: `root` is no corpus.
    """
    return (row for row in corpus_rows(root) if row["split"] in splits)


def _images(
    root: Path, name: str, rows: Sequence[Row], splits: Sequence[str]
) -> Iterator[IndexedImage]:
    if any(row["split"] in splits for row in rows):
        for image in shard_images(root, name, rows):
            if image.row["split"] in splits:
                yield image


def _needed(layout: Layout, rows: Iterator[Row]) -> tuple[float, int]:
    """Bytes and files of the export, about.

    Raises:
        DataError: an image cannot be written in this layout.
    """
    bytes_, files = 0.0, 0
    for row in rows:
        if layout.check is not None:
            layout.check(row)
        bytes_ += layout.bytes_of(row)
        files += layout.files_per_image
    return bytes_, files


def _require_space(out: Path, bytes_: float, files: int) -> None:
    """Raise TransientError where the disk cannot hold the export: before anything is written."""
    place = next(folder for folder in (out, *out.resolve().parents) if folder.exists())
    disk = os.statvfs(place)
    free = disk.f_bavail * disk.f_frsize
    if bytes_ > free:
        raise TransientError(
            f"the export needs about {bytes_ / 1e9:.3g} GB, and {place} has {free / 1e9:.3g} GB "
            "free: free space, name another disk, or export one split at a time (--split)"
        )
    if disk.f_files and files > disk.f_favail:
        raise TransientError(
            f"the export makes {files:,} files, and {place} has {disk.f_favail:,} inodes left: "
            "take the layout sarlo80, which keeps shards, or export one split at a time (--split)"
        )


def _found(out: Path, marker: dict[str, Any]) -> dict[str, Any] | None:
    """What `out` says of the export that was begun there; None for a new folder.

    Raises:
        ConfigError: it holds something else.
    """
    if not out.exists():
        return None
    if not out.is_dir():
        raise ConfigError(f"{out} is no folder: name a new one")
    # Temporary files of an export that was killed before it had written anything are hidden.
    if not any(not path.name.startswith(".") for path in out.iterdir()):
        return None
    try:
        found = read_json(out / MARKER)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{out} exists and is no export of a corpus ({error}): name a new folder"
        ) from error
    different = [
        name
        for name, value in marker.items()
        if not isinstance(found, dict) or found.get(name) != value
    ]
    if different:
        raise ConfigError(
            f"{out} holds an export of another {', '.join(different)}: name a new folder, or "
            f"remove {out}"
        )
    return dict(found)


def _readme(layout: Layout, images: int, out: Path) -> str:
    header = ""
    if layout.front_matter is not None:
        header = f"---\n{yaml.safe_dump(dict(layout.front_matter(out)), sort_keys=False)}---\n\n"
    return f"""{header}# Synthetic SAR images, layout {layout.name}

{images} images. **Every one is synthetic**: made by a text-to-image model from its prompt. It shows
no place on Earth, carries no geolocation, and must not be presented as a radar observation. The
card of the corpus says how they were made.

{layout.about}"""
