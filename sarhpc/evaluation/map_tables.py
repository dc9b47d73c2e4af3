"""Maps of the ground of a set in Parquet: one table for each part, and all of them in one array."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hpc.errors import DataError
from hpc.publish import publishing
from sarhpc.evaluation.tables import MeasuredTile
from sarhpc.measures.ground_maps import MAP_BYTES, SIDE, detail_db, ground_map

MAP_SCHEMA = "sarhpc.ground-maps/1"
_TEXTS = ("key", "file", "group")
_DETAIL = "detail_db"


@dataclass(frozen=True)
class MappedTiles:
    """Tiles of which there are maps, and how many there are none of."""

    maps: NDArray[np.float16]
    """(N, 32, 32)."""
    keys: tuple[str, ...]
    places: tuple[tuple[str, int], ...]
    """File and row of each."""
    groups: tuple[str, ...]
    """Flight line, else scene, of each; empty where neither is known."""
    faults: int
    """Tiles that cannot be read as an image."""
    details: NDArray[np.float32]
    """`ground_maps.detail_db` of each; NaN in tables of earlier versions."""

    def __len__(self) -> int:
        return len(self.keys)

    def subset(self, numbers: NDArray[np.int64]) -> MappedTiles:
        """The tiles of these numbers."""
        return MappedTiles(
            self.maps[numbers],
            tuple(self.keys[number] for number in numbers),
            tuple(self.places[number] for number in numbers),
            tuple(self.groups[number] for number in numbers),
            self.faults,
            self.details[numbers],
        )


def write_maps(path: Path, tiles: Iterable[MeasuredTile], facts: dict[str, str]) -> int:
    """Publish the maps of tiles at `path`, and return how many tiles there are.

    Tiles with a fault have none, nor do those too small for one.
    """
    rows: list[MeasuredTile] = []
    maps: list[bytes | None] = []
    details: list[float | None] = []
    for tile in tiles:
        rows.append(tile)
        found: tuple[bytes, float] | None = None
        with contextlib.suppress(ValueError):
            if not tile.fault:
                found = ground_map(tile.pixels).tobytes(), detail_db(tile.pixels)
        maps.append(found and found[0])
        details.append(found and found[1])
    columns = {name: pa.array([getattr(row, name) for row in rows], pa.string()) for name in _TEXTS}
    columns["row"] = pa.array([row.row for row in rows], pa.int64())
    columns[_DETAIL] = pa.array(details, pa.float32())
    columns["map"] = pa.array(maps, pa.binary(MAP_BYTES))
    with publishing(path) as file:
        pq.write_table(pa.table(columns, metadata={"schema": MAP_SCHEMA, **facts}), file)
    return len(rows)


def read_maps(paths: Sequence[Path]) -> MappedTiles:
    """The maps of the tables of a set, in order, in memory.

    Raises:
        DataError: a table cannot be read.
    """
    texts: dict[str, list[str]] = {name: [] for name in _TEXTS}
    numbers: list[int] = []
    # In place: parts joined at the end would be in memory twice.
    maps = np.empty((_rows(paths), SIDE, SIDE), np.float16)
    details = np.full(len(maps), np.nan, np.float32)
    faults = 0
    for path in paths:
        table = _read(path)
        known = table.filter(table["map"].is_valid())
        held = np.frombuffer(b"".join(known["map"].to_pylist()), np.float16)
        rows = slice(len(numbers), len(numbers) + len(known))
        maps[rows] = held.reshape(-1, SIDE, SIDE)
        if _DETAIL in known.column_names:
            details[rows] = known[_DETAIL].to_numpy()
        for name in _TEXTS:
            texts[name] += map(sys.intern, known[name].to_pylist())
        numbers += known["row"].to_pylist()
        faults += len(table) - len(known)
    places = tuple(zip(texts["file"], numbers, strict=True))
    return MappedTiles(
        maps[: len(numbers)],
        tuple(texts["key"]),
        places,
        tuple(texts["group"]),
        faults,
        details[: len(numbers)],
    )


def _rows(paths: Sequence[Path]) -> int:
    return sum(_opened(path, pq.read_metadata).num_rows for path in paths)


def _read(path: Path) -> pa.Table:
    return _opened(path, pq.read_table)


def _opened(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise DataError(f"table {path} cannot be read ({error}): remove it, and repeat") from error
