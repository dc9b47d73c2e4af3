"""Reading a packaged corpus by its index, each image checked against its digest."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hpc.errors import DataError, VerificationError
from sarhpc.corpus.index import INDEX, read_index
from sarhpc.corpus.rows import CAPTION, IMAGE
from sarhpc.corpus.splits import split_group, split_of
from sarhpc.shards.reader import read_shard
from sarhpc.shards.sample import Sample

Row = Mapping[str, Any]
_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class IndexedImage:
    """A sample of a corpus, and its row of the index."""

    row: Row
    sample: Sample


def corpus_rows(root: Path) -> Iterator[Row]:
    """Yield the rows of the index of the corpus in `root`, in order, each with its split.

    An index of version 0.1 has no splits: they follow from prompt and seed.

    Raises:
        DataError: there is no index, it is damaged, or it names a shard outside of `root`.
    """
    if not (root / INDEX).is_file():
        raise DataError(
            f"{root} holds no {INDEX}: name the folder of a corpus, or package it first: "
            "sarhpc package RUN"
        )
    for row in read_index(root / INDEX):
        shard = PurePosixPath(row["shard"])
        if shard.is_absolute() or ".." in shard.parts:
            raise DataError(f"{root / INDEX} names the shard {shard}, which is outside of {root}")
        if not _KEY.fullmatch(row["key"]):
            raise DataError(f"{root / INDEX} has the key {row['key']!r:.80}, which names no file")
        yield row if row["split"] is not None else _completed(row)


def _completed(row: Row) -> Row:
    group = split_group(row)
    return {**row, "split": split_of(group), "split_group": group}


def rows_by_shard(root: Path) -> Iterator[tuple[str, list[Row]]]:
    """Yield each shard that the index names and its rows; those of one shard are in memory.

    Raises:
        DataError: as for `corpus_rows`.
    """
    for name, rows in itertools.groupby(corpus_rows(root), key=_shard_of):
        yield name, list(rows)


def _shard_of(row: Row) -> str:
    return str(row["shard"])


def shard_images(root: Path, name: str, rows: Sequence[Row]) -> Iterator[IndexedImage]:
    """Yield the images of shard `name` that `rows` list, in order, one in memory.

    Raises:
        DataError: the shard is missing or damaged, or a sample has no image or caption.
        VerificationError: a sample is missing, or its image is not the one that was indexed.
    """
    remaining = {row["key"]: row for row in rows}
    path = root / name
    for sample in read_shard(path):
        row = remaining.pop(sample.key, None)
        if row is None:
            continue
        for member in (IMAGE, CAPTION):
            if member not in sample.members:
                raise DataError(f"sample {sample.key} of {path} has no {member}; restore the shard")
        if hashlib.sha256(sample.members[IMAGE]).hexdigest() != row["sha256"]:
            raise VerificationError(
                f"{IMAGE} of sample {sample.key} in {path} is not the one that was indexed: the "
                "shard is damaged or was replaced; restore it, or generate it again"
            )
        yield IndexedImage(row, sample)
    if remaining:
        raise VerificationError(
            f"{path} lacks {len(remaining)} samples of the index (first {min(remaining)}): it was "
            "replaced; restore it, or generate it again"
        )
