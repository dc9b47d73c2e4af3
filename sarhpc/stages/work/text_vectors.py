"""Captions and vectors of the tiles that are compared, part by part."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sarhpc.stages.work.measuring import Locate, Part, images_of
from sarhpc.stages.work.vector_tables import Place, VectorTables, parts_holding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sarhpc.captioning.captioners.clip import ClipScorer
    from sarhpc.evaluation.comparison_plan import ComparisonPlan
    from sarhpc.evaluation.config import EvaluateConfig
    from sarhpc.evaluation.image_sets import Choice, Image
    from sarhpc.evaluation.tables import TileMeasures

TABLES = "text"
"""Folder of the tables of vectors, one a part."""


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
        for part, held in parts_holding(self.planned, self.folder, name, pixels, measures.places):
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
        model = {"clip": scorer.revision}
        tables = VectorTables(self.planned, self.folder, TABLES, scorer.width, model, self.report)
        batches = functools.partial(self._batches, scorer=scorer)
        return tables.vectors(name, pixels, measures.places, batches)

    def _images(
        self, part: Part, places: Sequence[Place], choose: Choice
    ) -> Iterator[tuple[str, Image]]:
        """The images at these places of a part, each with its file as the part names it."""
        rows: dict[str, list[int]] = {}
        for file, row in places:
            rows.setdefault(file, []).append(row)
        files = [
            [file, rows[file], *facts] for file, _, *facts in part.inputs["files"] if file in rows
        ]
        return images_of({**part.inputs, "files": files}, self.locate, choose)

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
