"""E8 of sets whose tiles were measured: their pixels are read again, a few hundred at most."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sarhpc.stages.work.measuring import Locate, pixels_at

if TYPE_CHECKING:
    from sarhpc.evaluation.compared import ComparedSets
    from sarhpc.evaluation.comparison_plan import ComparisonPlan
    from sarhpc.evaluation.config import EvaluateConfig
    from sarhpc.evaluation.tables import TileMeasures


def with_orientation(
    compared: ComparedSets,
    planned: ComparisonPlan,
    views: Sequence[Mapping[str, TileMeasures]],
    config: EvaluateConfig,
    locate: Locate = Path,
) -> ComparedSets:
    """The same with the look direction of the first view's sets, in facts and notes.

    Raises:
        DataError: a tile cannot be read again.
    """
    from sarhpc.evaluation.compared import REAL
    from sarhpc.evaluation.orientation import asked, judge_orientation

    if not config.orientation_steps:
        return compared
    view, tiles, groups = views[0], {}, []
    for name, measures in view.items():
        rows = asked(len(measures.places))
        places = [measures.places[row] for row in rows]
        tiles[name] = list(pixels_at(planned, name, planned.pixels, places, locate))
        if name == REAL:
            groups = [measures.groups[row] for row in rows]
    real = tiles.pop(REAL)
    found = judge_orientation(real, groups, tiles, config.orientation_steps, config.seed)
    return dataclasses.replace(
        compared,
        notes=(*compared.notes, *found.notes()),
        facts={**compared.facts, "orientation": found.to_json()},
    )
