"""Sets of images on disk: shards of this project, other WebDataset tars, folders of images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.documents import parse_json
from hpc.errors import DataError
from hpc.regular_files import files_under
from sarhpc.shards.foreign import PICTURES, RADAR, list_foreign
from sarhpc.shards.reader import ShardIndex
from sarhpc.shards.sample import decode_meta
from sarhpc.shards.tar import read_exactly

IMAGES = (*PICTURES, "npy")
"""Extensions of single images."""
ARRAYS = ("sar16.npy", "sar.npy", "npy")
"""Members and extensions whose values are linear, with the range of the amplitude."""

Choice = Callable[[Collection[str]], Sequence[str]]
"""Which members of an image to read, of those that it has."""

_SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Name of a folder -> split."""


@dataclass(frozen=True)
class ImageSet:
    """The files of a set, each a tar of many images or an image of its own."""

    name: str
    """What a person named: a path, or a stage of a run."""
    files: tuple[str, ...]
    counts: tuple[int, ...]
    """Images in each file."""
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """File -> its row of `metadata.jsonl`, where there is one."""

    def __len__(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True)
class Image:
    """One image as it was found."""

    key: str
    members: Mapping[str, bytes]
    """Every member by extension; the bytes of those that were not read are empty."""
    meta: Mapping[str, Any]
    file: str
    row: int


def list_images(path: Path) -> ImageSet:
    """The set at `path`: a tar, the tars below a folder, else the images below it.

    Raises:
        DataError: there is nothing, or a tar is cut short or damaged.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; name a folder of shards or images, or a run")
    files = [path] if path.is_file() else sorted(f for f in files_under(path) if f.is_file())
    tars = [str(file) for file in files if file.suffix == ".tar"]
    if tars:
        return set_of_shards(str(path), tars)
    if any(file.name == "metadata.jsonl" for file in files):
        items = list_foreign(path).items
        named = {str(path / item.name): item.facts for item in items}
        return ImageSet(str(path), tuple(named), (1,) * len(named), named)
    images = tuple(str(file) for file in files if _extension(file) in IMAGES)
    if not images:
        raise DataError(
            f"{path} holds no images: name a folder of WebDataset tars or of images "
            f"({', '.join(IMAGES)}), a tar, or a run"
        )
    return ImageSet(str(path), images, (1,) * len(images))


def set_of_shards(name: str, tars: Sequence[str], counts: Sequence[int] | None = None) -> ImageSet:
    """The set of these tars; their images are counted where `counts` does not say how many.

    Raises:
        DataError: a tar is cut short or damaged.
    """
    if counts is None:
        counts = [len(_rows(ShardIndex.scan(Path(tar), ended=False))) for tar in tars]
    return ImageSet(name, tuple(tars), tuple(counts))


def read_facts(images: ImageSet, file: str, rows: Sequence[int] | None = None) -> Iterator[Image]:
    """Yield images of a file of the set, in order, with metadata and the names of their members.

    Args:
        images: the set.
        file: one of its files.
        rows: numbers of the images; None yields all.

    Raises:
        DataError: the tar is cut short or damaged, or metadata is no JSON object.
    """
    if not file.endswith(".tar"):
        path = Path(file)
        yield Image(path.stem, {_extension(path): b""}, images.facts.get(file, {}), file, 0)
        return
    yield from _read_tar(file, rows, lambda _: ())


def read_images(
    images: ImageSet, file: str, rows: Sequence[int], choose: Choice
) -> Iterator[Image]:
    """Yield the images of a file of the set at `rows`, one at a time in memory.

    Args:
        images: the set; only what it knows of the file is used.
        file: a tar, or an image, which has row 0 only.
        rows: numbers of the images in the tar.
        choose: the members to read, of those that an image has.

    Raises:
        DataError: the tar is cut short or damaged, or has fewer images.
        OSError: the file cannot be read.
    """
    if not file.endswith(".tar"):
        path = Path(file)
        members = {_extension(path): path.read_bytes()}
        yield Image(path.stem, members, images.facts.get(file, {}), file, 0)
        return
    yield from _read_tar(file, rows, choose)


def _read_tar(file: str, rows: Sequence[int] | None, choose: Choice) -> Iterator[Image]:
    path = Path(file)
    index, numbers = _indexed(path)
    with path.open("rb") as opened:
        for row in range(len(numbers)) if rows is None else rows:
            if row >= len(numbers):
                raise DataError(
                    f"{path} has {len(numbers)} images and not the {row + 1} that it was listed "
                    "with: restore it, or evaluate into another folder"
                )
            places, key = index.members(numbers[row]), index.key(numbers[row])
            meta = next((name for name in ("meta.json", "json") if name in places), None)
            wanted = {*choose(places), meta} & places.keys()
            found = {name: read_exactly(opened, places[name], path) for name in wanted if name}
            yield Image(
                key,
                {name: found.get(name, b"") for name in places},
                _meta(found, key, path),
                file,
                row,
            )


def _indexed(path: Path) -> tuple[ShardIndex, list[int]]:
    """Index of a tar, and the samples in it that are images; the last one is kept.

    Parts of a large tar follow each other, and each would read all its headers again.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"cannot open shard {path}: {error.strerror}.") from error
    return _scanned(path, found.st_ino, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _scanned(path: Path, *_: int) -> tuple[ShardIndex, list[int]]:
    index = ShardIndex.scan(path, ended=False)
    return index, _rows(index)


def folders_below(images: ImageSet, file: str) -> tuple[str, ...]:
    """Folders from that of the set down to an image; empty for images in shards."""
    root, path = Path(images.name), Path(file)
    if file.endswith(".tar") or not path.is_relative_to(root):
        return ()
    return path.relative_to(root).parent.parts


def split_of_folders(folders: Sequence[str]) -> str:
    """Split that the first folder names: `train`, `val` or `test`; empty where it names none."""
    return _SPLIT_FOLDERS.get(folders[0].lower(), "") if folders else ""


def group_of(meta: Mapping[str, Any]) -> str:
    """Flight line of a tile, else its scene; empty where it names neither."""
    return str(meta.get("flight_line") or meta.get("scene_id") or "")


def _rows(index: ShardIndex) -> list[int]:
    """Samples that hold a radar image; those of a corpus of optical images hold none."""
    wanted = [
        column for column, name in enumerate(index.extensions) if name in (*RADAR, "sar16.npy")
    ]
    if not wanted or not len(index):
        return []
    held: NDArray[np.int64] = np.flatnonzero(np.any(index.sizes[:, wanted] >= 0, axis=1))
    return [int(row) for row in held]


def _meta(found: Mapping[str, bytes], key: str, path: Path) -> dict[str, Any]:
    if "meta.json" in found:
        return decode_meta(found["meta.json"], key, path)
    try:
        value = parse_json(found.get("json", b"{}"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _extension(path: Path) -> str:
    return path.suffix.lower().lstrip(".")
