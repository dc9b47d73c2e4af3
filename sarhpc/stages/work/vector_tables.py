"""Vectors of the tiles that are compared, by a model: one table for each part of a set."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sarhpc.stages.work.measuring import PROGRESS_S, Part, parts_in

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sarhpc.evaluation.comparison_plan import ComparisonPlan

    Batches = Iterator[tuple[Sequence["Place"], NDArray[np.float32]]]

log = logging.getLogger(__name__)

Place = tuple[str, int]
"""File of a tile as a plan names it, and row in it."""


def parts_holding(
    planned: ComparisonPlan, folder: Path, name: str, pixels: str, places: Sequence[Place]
) -> Iterator[tuple[Part, list[Place]]]:
    """Yield the parts of a set that hold some of the places, each with those that it holds."""
    for part in parts_in(planned, folder):
        if (part.inputs["set"], part.inputs["pixels"]) != (name, pixels):
            continue
        rows = {file: {*rows} for file, rows, *_ in part.inputs["files"]}
        held = [(file, row) for file, row in places if row in rows.get(file, ())]
        if held:
            yield part, held


@dataclass(frozen=True)
class VectorTables:
    """Tables of vectors; those of the same tiles and the same model are kept."""

    planned: ComparisonPlan
    folder: Path
    """Of the evaluation."""
    kind: str
    """Folder of the tables in it."""
    width: int
    model: Mapping[str, str]
    """What the vectors depend on beside the tiles."""
    report: Callable[[str], None] = log.info
    """Is given a line at most every 30 s."""

    def vectors(
        self,
        name: str,
        pixels: str,
        places: Sequence[Place],
        batches: Callable[[Part, Sequence[Place]], Batches],
    ) -> NDArray[np.float32]:
        """Vectors (N, width) of the tiles of a set at `places`, in their order.

        Args:
            name: of the set.
            pixels: in which it is compared.
            places: of the tiles.
            batches: computes the vectors of some tiles of a part.

        Raises:
            DataError: a tile or a table cannot be read, or has vectors of another width.
        """
        import numpy as np

        from sarhpc.evaluation.feature_tables import read_features_of

        tables, begun = [], time.monotonic()
        for part, held in parts_holding(self.planned, self.folder, name, pixels, places):
            tables.append(self._table(part, held, batches))
            if time.monotonic() - begun >= PROGRESS_S:
                begun = time.monotonic()
                self.report(f"{self.kind} set={name} parts={len(tables)}")
        found = read_features_of(tables, self.width)
        return np.stack([found[place] for place in places])

    def _table(
        self,
        part: Part,
        places: Sequence[Place],
        batches: Callable[[Part, Sequence[Place]], Batches],
    ) -> Path:
        from sarhpc.evaluation.feature_tables import are_features, write_features
        from sarhpc.evaluation.tables import facts_of_table

        path = self.folder / self.kind / f"{part.id}.parquet"
        facts = {
            **self.model,
            "input": facts_of_table(part.table).get("input", ""),
            "places": hashlib.sha256(json.dumps(places).encode()).hexdigest(),
        }
        if not are_features(path, facts):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_features(path, batches(part, places), self.width, facts)
        return path
