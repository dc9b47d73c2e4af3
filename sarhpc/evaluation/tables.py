"""Measures of each tile in Parquet: one table for each part of a set."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hpc.errors import DataError
from hpc.publish import publishing
from sarhpc.evaluation.drawing import whole_turns
from sarhpc.measures.features import Features, join, measure
from sarhpc.measures.nulls import evenly_over_groups
from sarhpc.shards.subset import spread

TABLE_SCHEMA = "sarhpc.tile-measures/1"
_TEXTS = ("key", "file", "group", "split", "fault")
_ROWS = 64
"""Tiles whose measures are held in memory before they are written."""


@dataclass(frozen=True)
class MeasuredTile:
    """One tile: what identifies it, and its pixels."""

    key: str
    file: str
    row: int
    group: str
    """Flight line, else scene; empty where neither is known."""
    split: str
    pixels: NDArray[Any]
    """(H, W), for `measure`."""
    fault: str | None = None
    """Why it cannot be measured; its measures are NaN then."""


@dataclass(frozen=True)
class TileMeasures:
    """Measures of the tiles of a set that can be measured, and the others."""

    features: Features
    groups: tuple[str, ...]
    places: tuple[tuple[str, int], ...]
    """File and row of each tile."""
    faults: tuple[tuple[str, str], ...]
    """Key and fault of each tile that cannot be measured."""
    measured: int
    """Tiles in the tables, of which these were taken."""


def write_table(path: Path, tiles: Iterable[MeasuredTile], facts: dict[str, str]) -> int:
    """Publish the measures of tiles at `path`, and return how many; a few are in memory at a time.

    Args:
        path: of the table.
        tiles: one or more.
        facts: written into the metadata of the file; `facts_of_table` reads them.

    Raises:
        DataError: there are no tiles.
    """
    writer: pq.ParquetWriter | None = None
    count = 0
    with publishing(path) as file:
        for batch in _batches(_measured(tiles)):
            rows, features = zip(*batch, strict=True)
            table = _table(rows, features, facts)
            writer = writer or pq.ParquetWriter(file, table.schema)
            writer.write_table(table)
            count += len(rows)
        if writer is None:
            raise DataError(f"{path.name}: no tiles to measure")
        writer.close()
    return count


def _measured(tiles: Iterable[MeasuredTile]) -> Iterator[tuple[MeasuredTile, Features | None]]:
    for tile in tiles:
        if tile.fault is not None:
            yield tile, None
            continue
        try:
            yield tile, measure([tile.pixels])
        except ValueError as error:
            yield dataclasses.replace(tile, fault=str(error).removeprefix("tile 0: ")), None


def _batches(pairs: Iterable[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == _ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _table(
    rows: Sequence[MeasuredTile], features: Sequence[Features | None], facts: dict[str, str]
) -> pa.Table:
    columns: dict[str, Any] = {
        name: pa.array([getattr(row, name) for row in rows], pa.string()) for name in _TEXTS
    }
    columns["row"] = pa.array([row.row for row in rows], pa.int64())
    shapes = _shapes()
    for name, shape in shapes.items():
        nothing = np.full((1, *shape), np.nan)
        values = [nothing if one is None else getattr(one, name) for one in features]
        flat = np.concatenate(values).astype(np.float64).reshape(-1)
        array = pa.array(flat, pa.float64())
        width = int(np.prod(shape, dtype=np.int64)) if shape else 0
        columns[name] = pa.FixedSizeListArray.from_arrays(array, width) if shape else array
    metadata = {"schema": TABLE_SCHEMA, "shapes": json.dumps(shapes), **facts}
    return pa.table(columns, metadata=metadata)


def _shapes() -> dict[str, tuple[int, ...]]:
    """Shape of each feature of one tile, measured on noise."""
    if not _SHAPES:
        noise = np.random.default_rng(0).rayleigh(0.2, (64, 64))
        one = measure([noise])
        _SHAPES.update({f.name: getattr(one, f.name).shape[1:] for f in fields(Features)})
    return _SHAPES


_SHAPES: dict[str, tuple[int, ...]] = {}


def facts_of_table(path: Path) -> dict[str, str]:
    """The facts in the metadata of a table; empty where there is none, or it cannot be read."""
    if not path.is_file():
        return {}
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return {}
    return {name.decode(): value.decode() for name, value in metadata.items()}


def read_columns(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of a table that are not measures: `key`, `file`, `row`, `group`, `split`, `fault`.

    Raises:
        DataError: the table cannot be read.
    """
    return {name: column.to_pylist() for name, column in _read(path, names).items()}


def read_features(path: Path, rows: NDArray[np.int64]) -> Features:
    """Measures of the tiles at `rows` of a table.

    Raises:
        DataError: the table cannot be read, or holds other measures than this version makes.
    """
    names = [f.name for f in fields(Features)]
    shapes = json.loads(facts_of_table(path).get("shapes", "{}"))
    if set(shapes) != set(names):
        raise DataError(f"{path} was written by another version: remove it, and evaluate again")
    values = []
    for name, column in _read(path, names).items():
        chunk = column.combine_chunks()
        flat = chunk.flatten() if shapes[name] else chunk
        values.append(flat.to_numpy(zero_copy_only=False).reshape(-1, *shapes[name])[rows])
    return Features(*values)


def _read(path: Path, names: Sequence[str]) -> dict[str, Any]:
    try:
        table = pq.read_table(path, columns=list(names))
        return {name: table.column(name) for name in names}
    except (OSError, pa.ArrowException, KeyError) as error:
        raise DataError(f"table {path} cannot be read ({error}): remove it, and repeat") from error


def read_tables(
    paths: Sequence[Path], limit: int | None = None, by_group: bool = False
) -> TileMeasures:
    """Measures of the tiles of a set, at most `limit`; memory holds those alone.

    Args:
        paths: tables of the parts, in order.
        limit: most tiles; None takes all.
        by_group: take them evenly over groups, and a few more where every group then gives as many;
            else evenly from first to last.

    Raises:
        DataError: a table cannot be read, or no tile can be measured.
    """
    rows: list[tuple[str, str, int]] = []
    faults: list[tuple[str, str]] = []
    sizes, good = [], []
    for path in paths:
        found = read_columns(path, ("key", "group", "file", "row", "fault"))
        good += [len(rows) + n for n, fault in enumerate(found["fault"]) if fault is None]
        faults += [(k, f) for k, f in zip(found["key"], found["fault"], strict=True) if f]
        names = ((sys.intern(text) for text in found[name]) for name in ("group", "file"))
        rows += zip(*names, found["row"], strict=True)
        sizes.append(len(found["key"]))
    if not good:
        why = "; ".join(f"{key}: {fault}" for key, fault in faults[:3])
        raise DataError(f"no image can be measured ({why})")
    groups = [group for group, _, _ in rows]
    taken = _chosen(np.array(good, np.int64), groups, limit, by_group)
    parts, first = [], 0
    for path, size in zip(paths, sizes, strict=True):
        low, high = np.searchsorted(taken, [first, first + size])
        if high > low:
            parts.append(read_features(path, taken[low:high] - first))
        first += size
    places = tuple(rows[number][1:] for number in taken)
    labels = tuple(groups[number] for number in taken)
    return TileMeasures(join(parts), labels, places, tuple(faults), len(rows))


def _chosen(
    good: NDArray[np.int64], groups: Sequence[str], limit: int | None, by_group: bool
) -> NDArray[np.int64]:
    if limit is None or limit >= good.size:
        return good
    if by_group:
        labels = [groups[number] for number in good]
        return good[evenly_over_groups(labels, whole_turns(limit, len({*labels})))]
    return np.array(spread(good.tolist(), limit), np.int64)
