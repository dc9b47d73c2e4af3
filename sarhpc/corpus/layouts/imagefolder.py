"""PNG files in folders by split and class, with `metadata.jsonl`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from hpc.publish import publish_bytes, publishing
from sarhpc.corpus.layouts.layout import Layout, image_path, known
from sarhpc.corpus.reading import IndexedImage, Row
from sarhpc.corpus.rows import IMAGE

TABLE = "metadata.jsonl"


def write_shard(out: Path, _shard: str, images: Iterable[IndexedImage]) -> int:
    """Write one PNG per image, the bytes of the shard."""
    count = 0
    for image in images:
        path = out / image_path(image.row, "png")
        if not path.exists():
            publish_bytes(path, image.sample.members[IMAGE])
        count += 1
    return count


def write_tables(out: Path, rows: Iterator[Row]) -> None:
    """Publish `metadata.jsonl` of each split: file name, text, and what the index knows."""
    with contextlib.ExitStack() as open_files:
        tables: dict[str, IO[bytes]] = {}
        for row in rows:
            split = row["split"]
            if split not in tables:
                tables[split] = open_files.enter_context(publishing(out / split / TABLE))
            name = image_path(row, "png").relative_to(PurePosixPath(split)).as_posix()
            entry = {"file_name": name, "text": row["prompt"], **known(dict(row))}
            tables[split].write(json.dumps(entry, sort_keys=True).encode() + b"\n")


IMAGEFOLDER = Layout(
    name="imagefolder",
    summary="PNG files by split and class with metadata.jsonl",
    write_shard=write_shard,
    bytes_of=lambda row: float(row["size"] or 0) + 2000,
    finish=write_tables,
    about="""\
`SPLIT/CLASS/SHARD/KEY.png`, and `SPLIT/metadata.jsonl` with `file_name`, `text` (the prompt) and
the columns of the index. `datasets.load_dataset("imagefolder", data_dir=...)` reads images with
texts, `torchvision.datasets.ImageFolder(".../train")` images with classes.
""",
)
