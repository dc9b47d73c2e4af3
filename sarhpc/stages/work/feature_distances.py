"""E9 of sets whose tiles were measured: from their tables, and by a network from their pixels."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.errors import DataError
from sarhpc.stages.work.leaving_out import leaving_out
from sarhpc.stages.work.measuring import Locate, Part, pixels_at
from sarhpc.stages.work.vector_tables import Place, VectorTables

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sarhpc.evaluation.backbone import Backbone
    from sarhpc.evaluation.compared import ComparedSets
    from sarhpc.evaluation.comparison_plan import ComparisonPlan
    from sarhpc.evaluation.config import EvaluateConfig
    from sarhpc.evaluation.feature_config import FeaturesConfig
    from sarhpc.evaluation.tables import TileMeasures
    from sarhpc.measures.feature_nulls import Pairing, Reference

    View = Mapping[str, TileMeasures]

log = logging.getLogger(__name__)

BLOCK = "features"
FEATURES_SCHEMA = "sarhpc.features/1"
MEASURED, BACKBONE = "measured", "backbone"
TABLES = "features"
"""Folder of the tables of features, one a part."""


@dataclass(frozen=True)
class _Side:
    """Sets of one view, which of its tiles face each other, and their files."""

    view: View
    pixels: str
    names: tuple[str, ...]
    """Sets that are judged in this view."""
    pairings: Mapping[str, Pairing]


def require_backbone(cfg: FeaturesConfig, tile_px: Sequence[int]) -> None:
    """Raise ConfigError unless the network that is configured, if any, takes such tiles.

    Raises:
        ConfigError: it cannot be loaded, has another width, or takes no tile of this size.
        MissingExtraError: packages that it needs are not installed.
    """
    from sarhpc.extras import require_extra

    if cfg.backbone is not None:
        for extra in ("caption", "features"):
            require_extra(extra, "evaluate.features.backbone")
        from sarhpc.evaluation.backbone import load_backbone

        load_backbone(_located(cfg), tile_px)


def _located(cfg: FeaturesConfig) -> FeaturesConfig:
    """The same with the folder of an embedded or fetched model in place of its name."""
    from sarhpc.stages.inputs.paths import model_folder

    return dataclasses.replace(cfg, backbone=model_folder(str(cfg.backbone)))


def with_features(
    compared: ComparedSets,
    planned: ComparisonPlan,
    views: Sequence[View],
    config: EvaluateConfig,
    folder: Path,
    locate: Locate = Path,
    report: Callable[[str], None] = log.info,
) -> ComparedSets:
    """The same with the block `features`; what could not be measured is said in it, and in a note.

    Tables of features in `folder` of the same tiles and network are kept.

    Args:
        compared: the sets as they are compared so far.
        planned: what is compared.
        views: measures of the tiles by set.
        config: of the evaluation.
        folder: of its tables.
        locate: finds a file by its name in the plan.
        report: is given a line at most every 30 s.
    """
    cfg = config.features
    if not cfg.measured and cfg.backbone is None:
        return compared
    sides = _sides(views, planned, config.seed)
    block: dict[str, Any] = {
        "schema": FEATURES_SCHEMA, "vectors": {}, "sets": {n: {} for s in sides for n in s.names},
        "left_out": [],
    }  # fmt: skip
    steps: dict[str, Callable[[], None]] = {}
    if cfg.measured:
        steps[MEASURED] = lambda: _add_measured(block, sides)
    if cfg.backbone is not None:
        steps[BACKBONE] = lambda: _add_backbone(block, sides, planned, cfg, folder, locate, report)
    for name, step in steps.items():
        reasons: list[str] = []
        with leaving_out(reasons.append):
            step()
        block["left_out"] += [f"features {name}: {reason}" for reason in reasons]
    for reason in block["left_out"]:
        log.warning("E9, left out: %s", reason)
    notes = [f"E9, left out: {reason}" for reason in block["left_out"]]
    return dataclasses.replace(
        compared,
        notes=(*compared.notes, *notes),
        blocks={**compared.blocks, BLOCK: block},
    )


def _sides(views: Sequence[View], planned: ComparisonPlan, seed: int) -> list[_Side]:
    """Each set in the first view that has it."""
    from sarhpc.evaluation.compared import REAL
    from sarhpc.measures.feature_nulls import pair

    sides: list[_Side] = []
    judged: set[str] = {REAL}
    for view, (pixels, _) in zip(views, planned.views, strict=True):
        names = tuple(name for name in view if name not in judged)
        judged.update(names)
        real = view[REAL]
        groups = real.groups if any(real.groups) else None
        sizes = {name: len(view[name].features) for name in names}
        pairings = {n: pair(real.features, groups, count, seed) for n, count in sizes.items()}
        sides.append(_Side(view, pixels, names, pairings))
    return sides


def _add_measured(block: dict[str, Any], sides: Sequence[_Side]) -> None:
    from sarhpc.evaluation.compared import REAL
    from sarhpc.measures.feature_vectors import VECTOR_NAMES, standardised, tile_vectors

    block["vectors"][MEASURED] = {
        "width": len(VECTOR_NAMES),
        "names": list(VECTOR_NAMES),
        "input": "what E1 to E6 measure of each tile, in standard deviations of the real tiles",
    }
    for side in sides:
        real = tile_vectors(side.view[REAL].features)
        for name in side.names:
            ours = standardised(tile_vectors(side.view[name].features), real)
            _add(block, side, name, MEASURED, ours, standardised(real, real))


def _add(
    block: dict[str, Any],
    side: _Side,
    name: str,
    vectors: str,
    ours: NDArray[np.float64],
    real: NDArray[np.float64],
    reference: Reference | None = None,
) -> None:
    from sarhpc.measures.feature_nulls import evenly, judge_vectors

    pairing = side.pairings[name]
    chosen = ours[evenly(len(ours), pairing.tiles)]
    found = judge_vectors(chosen, real, pairing, reference=reference)
    block["sets"][name][vectors] = {
        measure: {**asdict(one), "tiles": pairing.tiles} for measure, one in found.items()
    }


def _add_backbone(
    block: dict[str, Any],
    sides: Sequence[_Side],
    planned: ComparisonPlan,
    cfg: FeaturesConfig,
    folder: Path,
    locate: Locate,
    report: Callable[[str], None],
) -> None:
    from sarhpc.evaluation.backbone import load_backbone
    from sarhpc.evaluation.compared import REAL
    from sarhpc.evaluation.feature_config import DB
    from sarhpc.evaluation.feature_reference import reference_values
    from sarhpc.evaluation.set_facts import RAW_CODES

    backbone = load_backbone(_located(cfg), planned.px)
    block["vectors"][BACKBONE] = {**backbone.to_json(), "px_of_tiles": list(planned.px)}
    extraction = _Extraction(planned, locate, backbone, cfg.batch)
    model = {"backbone": backbone.identity()}
    tables = VectorTables(planned, folder, TABLES, backbone.width, model, report)

    def features(name: str, side: _Side) -> NDArray[np.float64]:
        """Features (N, width) of the tiles of a set."""
        places = side.view[name].places
        return tables.vectors(name, side.pixels, places, extraction.batches).astype("float64")

    for side in sides:
        if cfg.pixels == DB and side.pixels == RAW_CODES:
            raise DataError(
                f"features.pixels=db needs levels, and {', '.join(side.names)} has codes of an "
                "unknown law; give features.pixels=codes"
            )
        real = features(REAL, side)
        for name in side.names:
            _add(block, side, name, BACKBONE, features(name, side), real, reference_values)


@dataclass(frozen=True)
class _Extraction:
    """Features of tiles by a network."""

    planned: ComparisonPlan
    locate: Locate
    backbone: Backbone
    batch: int

    def batches(
        self, part: Part, places: Sequence[Place]
    ) -> Iterator[tuple[Sequence[Place], NDArray[np.float32]]]:
        """Yield places and features (N, width) of some tiles of a part at a time."""
        from sarhpc.evaluation.backbone import features_of

        name, pixels = part.inputs["set"], part.inputs["pixels"]
        for first in range(0, len(places), self.batch):
            taken = places[first : first + self.batch]
            tiles = list(pixels_at(self.planned, name, pixels, taken, self.locate))
            found = features_of(self.backbone, tiles)
            if found.shape != (len(taken), self.backbone.width):
                raise DataError(
                    f"{self.backbone.path} made {found.shape} of {len(taken)} tiles, and not "
                    f"{self.backbone.width} features of each"
                )
            yield taken, found
