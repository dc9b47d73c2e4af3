"""Features of tiles by a network in Parquet: one table for each part of a set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hpc.errors import DataError
from hpc.publish import publishing
from sarhpc.evaluation.tables import facts_of_table

FEATURES_SCHEMA = "sarhpc.tile-features/1"
Place = tuple[str, int]
"""File of a tile, and row in it."""


def write_features(
    path: Path,
    batches: Iterable[tuple[Sequence[Place], NDArray[np.float32]]],
    width: int,
    facts: Mapping[str, str],
) -> None:
    """Publish features at `path`, a batch of tiles in memory at a time.

    Args:
        path: of the table.
        batches: places of some tiles, and their features (N, width).
        width: features of a tile.
        facts: written into the metadata of the file, as what the features depend on.
    """
    vector = pa.list_(pa.float32(), width)
    schema = pa.schema(
        [("file", pa.string()), ("row", pa.int64()), ("features", vector)],
        metadata={"schema": FEATURES_SCHEMA, "width": str(width), **facts},
    )
    with publishing(path) as file, pq.ParquetWriter(file, schema) as writer:
        for places, features in batches:
            flat = pa.array(np.ascontiguousarray(features).reshape(-1), pa.float32())
            columns: list[Any] = [
                pa.array([name for name, _ in places], pa.string()),
                pa.array([row for _, row in places], pa.int64()),
                pa.FixedSizeListArray.from_arrays(flat, width),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def are_features(path: Path, facts: Mapping[str, str]) -> bool:
    """Whether the table at `path` was written with these facts; not if it cannot be read."""
    found = facts_of_table(path)
    return bool(found) and all(found.get(name) == value for name, value in facts.items())


def read_features_of(paths: Sequence[Path], width: int) -> dict[Place, NDArray[np.float32]]:
    """Features (width,) of each tile of the tables, by place.

    Raises:
        DataError: a table cannot be read, or has features of another width.
    """
    found: dict[Place, NDArray[np.float32]] = {}
    for path in paths:
        try:
            table = pq.read_table(path)
            vectors = table.column("features").combine_chunks()
            files, rows = table.column("file").to_pylist(), table.column("row").to_pylist()
        except (OSError, pa.ArrowException, KeyError) as error:
            raise DataError(f"{path} cannot be read ({error}): remove it, and repeat") from error
        held = vectors.type.list_size
        if held != width:
            raise DataError(
                f"{path} holds {held} features of each tile, and the network has {width}: remove "
                f"{path.parent}, and repeat"
            )
        values = vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
        found |= dict(zip(zip(files, rows, strict=True), values, strict=True))
    return found
