"""The images of a corpus as they are planned: one row of a Parquet file each.

A plan holds ranges of these rows with their digests, so it stays small however many prompts there
are, and a worker reads the rows of its shard only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hpc.errors import VerificationError
from hpc.publish import publishing
from sarhpc.generation.plan import ImageRequest, image_seed
from sarhpc.generation.prompts.cells import Counts
from sarhpc.generation.prompts.order import image_order
from sarhpc.generation.prompts.row import Label
from sarhpc.generation.prompts.table import PromptTable

IMAGES_FILE = "images.parquet"
"""Name of the file, in the directory of the stage."""
_GROUP = 16_384
"""Images of a row group: what is read for one shard."""
_encoded = json.JSONEncoder(sort_keys=True).encode
_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("repetition", pa.int64(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("negative_prompt", pa.string()),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("given_seed", pa.int64()),
        pa.field("labels", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class PlannedImage:
    """One image of a corpus."""

    row: int
    """Row of the table, from 0."""
    repetition: int
    """How many images of this row come before it."""
    prompt: str
    negative_prompt: str | None
    seed: int
    given_seed: int | None
    """Seed that the table gives to the row."""
    labels: str
    """JSON object of its labels, with sorted keys."""

    @property
    def digested(self) -> list[Any]:
        """What determines the image."""
        return [self.prompt, self.negative_prompt, self.seed, self.labels]

    def request(self, index: int) -> ImageRequest:
        """The request for it as image `index` of a shard."""
        labels: dict[str, Label] = json.loads(self.labels)
        return ImageRequest(index, self.prompt, self.seed, self.negative_prompt, labels)


def repetition_seed(run_seed: int, prompt: str, given: int | None, repetition: int) -> int:
    """Seed of an image: that of its row first, then hashes of it; without one of the run's seed."""
    if given is None:
        return image_seed(run_seed, prompt, repetition)
    return given if repetition == 0 else image_seed(given, prompt, repetition)


def publish_images(
    path: Path,
    table: PromptTable,
    counts: Counts,
    fields: Sequence[str],
    *,
    seed: int,
    shard_images: int,
) -> list[dict[str, Any]]:
    """Publish the planned images at `path`; first image, count and digest of each shard.

    Args:
        path: of the Parquet file.
        table: the rows.
        counts: images of each row.
        fields: that any part of the corpus is to cover alike.
        seed: of the run.
        shard_images: images of a shard.
    """
    images = planned_images(table, counts, fields, seed)
    shards: list[dict[str, Any]] = []
    group: list[PlannedImage] = []
    with publishing(path) as file, pq.ParquetWriter(file, _SCHEMA, compression="zstd") as writer:
        for shard in _batches(images, shard_images):
            first = shards[-1]["first"] + shards[-1]["count"] if shards else 0
            shards.append({"first": first, "count": len(shard), "images_sha256": _digest(shard)})
            group += shard
            while len(group) >= _GROUP:
                writer.write_table(_arrow(group[:_GROUP]))
                del group[:_GROUP]
        if group:
            writer.write_table(_arrow(group))
    return shards


def planned_images(
    table: PromptTable, counts: Counts, fields: Sequence[str], seed: int
) -> Iterator[PlannedImage]:
    """The images of a corpus in order."""
    rows, repetitions = image_order(table, counts, fields, seed)
    for row, repetition in zip(rows.tolist(), repetitions.tolist(), strict=True):
        prompt, given = table.prompts[row], table.seeds.get(row)
        labels = _encoded(table.row_labels(row))
        yield PlannedImage(
            row,
            repetition,
            prompt,
            table.negatives.get(row),
            repetition_seed(seed, prompt, given, repetition),
            given,
            labels,
        )


@contextlib.contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """The file of planned images.

    Raises:
        VerificationError: it is missing or damaged, found when it is opened or read.
    """
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException, TypeError, ValueError, KeyError) as error:
        raise VerificationError(
            f"{path}, which the plan reads its images from, cannot be read ({error}): restore it, "
            "or start a new run"
        ) from error


def read_images(path: Path, first: int, count: int) -> list[PlannedImage]:
    """The planned images `first` to `first + count - 1`; reads their row groups only.

    Raises:
        VerificationError: the file is missing or damaged, or has fewer images.
    """
    found: list[PlannedImage] = []
    with opened(path) as file:
        begin = 0
        for number in range(file.num_row_groups):
            size = file.metadata.row_group(number).num_rows
            if begin < first + count and begin + size > first:
                start = max(first - begin, 0)
                length = min(begin + size, first + count) - begin - start
                group = file.read_row_group(number).slice(start, length)
                found += [PlannedImage(**row) for row in group.to_pylist()]
            begin += size
    if len(found) != count:
        raise VerificationError(f"{path} has no images {first} to {first + count - 1}: restore it")
    return found


def shard_images(path: Path, first: int, count: int, sha256: str) -> list[ImageRequest]:
    """The images of a planned shard, in order.

    Raises:
        VerificationError: the file has others than were planned.
    """
    images = read_images(path, first, count)
    if _digest(images) != sha256:
        raise VerificationError(
            f"images {first} to {first + count - 1} of {path} are not those of the plan: restore it"
        )
    return [image.request(index) for index, image in enumerate(images)]


def ranges_of(path: Path, images: int, shard_images: int) -> list[dict[str, Any]]:
    """First image, count and digest of shards of the first `images` images at `path`."""
    with opened(path) as file:
        total = min(images, file.metadata.num_rows)
    shards = []
    for first in range(0, total, shard_images):
        count = min(shard_images, total - first)
        digest = _digest(read_images(path, first, count))
        shards.append({"first": first, "count": count, "images_sha256": digest})
    return shards


def _batches(images: Iterator[PlannedImage], size: int) -> Iterator[list[PlannedImage]]:
    batch: list[PlannedImage] = []
    for image in images:
        batch.append(image)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _digest(images: Sequence[PlannedImage]) -> str:
    text = json.dumps([image.digested for image in images], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _arrow(images: Sequence[PlannedImage]) -> pa.Table:
    columns = {name: [getattr(image, name) for image in images] for name in _SCHEMA.names}
    return pa.table(columns, schema=_SCHEMA)
