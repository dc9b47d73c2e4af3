"""Measures by class of sets whose tiles were measured: their metadata are read again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sarhpc.stages.inputs.prompts import asked_class, land_cover

if TYPE_CHECKING:
    from sarhpc.evaluation.compared import ComparedSets
    from sarhpc.evaluation.comparison_plan import ComparisonPlan
    from sarhpc.evaluation.tables import TileMeasures
    from sarhpc.stages.work.measuring import Locate

BLOCK = "classes"


def with_classes(
    compared: ComparedSets,
    planned: ComparisonPlan,
    views: Sequence[Mapping[str, TileMeasures]],
    locate: Locate = Path,
) -> ComparedSets:
    """The same with the measures by class of the first view's sets, where tiles name classes.

    Raises:
        DataError: metadata cannot be read again.
    """
    from sarhpc.evaluation.class_measures import class_block

    sets = {
        name: (measures.features, _classes_at(planned, name, measures.places, locate))
        for name, measures in views[0].items()
    }
    block = class_block(sets)
    return (
        dataclasses.replace(compared, blocks={**compared.blocks, BLOCK: block})
        if block
        else compared
    )


def _classes_at(
    planned: ComparisonPlan, name: str, places: Sequence[tuple[str, int]], locate: Locate
) -> list[str | None]:
    """The class of each tile of a set by file and row; None where it names none."""
    from sarhpc.evaluation.image_sets import ImageSet, read_facts

    rows: dict[str, list[int]] = {}
    for file, row in places:
        rows.setdefault(file, []).append(row)
    known = {
        file: facts[0] if facts else {}
        for part in planned.parts
        if part["set"] == name
        for file, _, *facts in part["files"]
    }
    found: dict[tuple[str, int], str | None] = {}
    for file, wanted in rows.items():
        path = str(locate(file))
        images = ImageSet(name, (path,), (len(wanted),), {path: known.get(file, {})})
        for image in read_facts(images, path, wanted):
            meta = dict(image.meta)
            found[file, image.row] = asked_class(meta) or land_cover(meta)
    return [found[place] for place in places]
