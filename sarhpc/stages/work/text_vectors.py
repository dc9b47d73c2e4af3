"""Captions and vectors of the tiles that are compared, part by part."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sarhpc.stages.work.measuring import PROGRESS_S, Locate, Part, parts_in

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sarhpc.captioning.captioners.clip import ClipScorer
    from sarhpc.evaluation.comparison_plan import ComparisonPlan
    from sarhpc.evaluation.config import EvaluateConfig
    from sarhpc.evaluation.image_sets import Image
    from sarhpc.evaluation.tables import TileMeasures

TABLES = "text"
"""Folder of the tables of vectors, one a part."""

Place = tuple[str, int]
"""File of a tile as a plan names it, and row in it."""


@dataclass(frozen=True)
class Described:
    """What an image says of itself, without its pixels."""

    caption: str | None
    group: str
    meta: Mapping[str, Any]


@dataclass(frozen=True)
class Reading:
    """Captions and vectors of the tiles that are compared, part by part."""

    planned: ComparisonPlan
    folder: Path
    locate: Locate
    report: Callable[[str], None]
    config: EvaluateConfig

    def captions(self, name: str, pixels: str, measures: TileMeasures) -> Iterator[Described]:
        """Yield what the images of a set say of themselves, in their order."""
        from sarhpc.evaluation.caption_content import caption_of

        found: dict[Place, Described] = {}
        groups = dict(zip(measures.places, measures.groups, strict=True))
        for part, held in self._parts(name, pixels, measures.places):
            for file, image in self._images(
                part, held, lambda names: [n for n in names if n == "txt"]
            ):
                place = (file, image.row)
                found[place] = Described(caption_of(image), groups[place], image.meta)
        return (found[place] for place in measures.places)

    def vectors(
        self, name: str, pixels: str, measures: TileMeasures, scorer: ClipScorer
    ) -> NDArray[np.float32]:
        """Unit vectors (N, width) of the tiles of a set in their order.

        Raises:
            DataError: a tile or a table cannot be read, or has vectors of another width.
        """
        import numpy as np

        from sarhpc.evaluation.feature_tables import read_features_of

        tables, begun = [], time.monotonic()
        for part, held in self._parts(name, pixels, measures.places):
            tables.append(self._table(part, held, scorer))
            if time.monotonic() - begun >= PROGRESS_S:
                begun = time.monotonic()
                self.report(f"text set={name} parts={len(tables)}")
        found = read_features_of(tables, scorer.width)
        return np.stack([found[place] for place in measures.places])

    def _parts(
        self, name: str, pixels: str, places: Sequence[Place]
    ) -> Iterator[tuple[Part, list[Place]]]:
        """Yield the parts of a set, and those of the places that lie in each."""
        for part in parts_in(self.planned, self.folder):
            if (part.inputs["set"], part.inputs["pixels"]) != (name, pixels):
                continue
            rows = {file: {*rows} for file, rows, *_ in part.inputs["files"]}
            held = [(file, row) for file, row in places if row in rows.get(file, ())]
            if held:
                yield part, held

    def _images(
        self, part: Part, places: Sequence[Place], choose: Callable[[Any], Sequence[str]]
    ) -> Iterator[tuple[str, Image]]:
        """Yield images with their file as the part names it."""
        from sarhpc.evaluation.image_sets import ImageSet, read_images

        rows: dict[str, list[int]] = {}
        for file, row in places:
            rows.setdefault(file, []).append(row)
        facts = {file: rest for file, _, *rest in part.inputs["files"]}
        for file, wanted in rows.items():
            path = str(self.locate(file))
            known = ImageSet(
                part.inputs["set"],
                (path,),
                (len(wanted),),
                dict.fromkeys([path], *facts[file]) if facts[file] else {},
            )
            for image in read_images(known, path, wanted, choose):
                yield file, image

    def _table(self, part: Part, places: Sequence[Place], scorer: ClipScorer) -> Path:
        """The table of a part; one of the same tiles and model is kept."""
        from sarhpc.evaluation.feature_tables import are_features, write_features
        from sarhpc.evaluation.tables import facts_of_table

        path = self.folder / TABLES / f"{part.id}.parquet"
        facts = {
            "input": facts_of_table(part.table).get("input", ""),
            "clip": scorer.revision,
            "places": hashlib.sha256(json.dumps(places).encode()).hexdigest(),
        }
        if not are_features(path, facts):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_features(path, self._batches(part, places, scorer), scorer.width, facts)
        return path

    def _batches(
        self, part: Part, places: Sequence[Place], scorer: ClipScorer
    ) -> Iterator[tuple[Sequence[Place], NDArray[np.float32]]]:
        import numpy as np

        from sarhpc.captioning.contrastive.tiles import seen
        from sarhpc.evaluation.pixels import code_member, codes

        batch: list[tuple[Place, Any]] = []
        for file, image in self._images(part, places, code_member):
            picture = codes(image, part.inputs["scale"], decoded=False)
            codes8 = np.asarray(picture, np.uint8)
            batch.append(((file, image.row), seen(codes8, dict(image.meta))))
            if len(batch) == scorer.batch:
                yield [place for place, _ in batch], scorer.see([one for _, one in batch])
                batch = []
        if batch:
            yield [place for place, _ in batch], scorer.see([one for _, one in batch])
