"""E10 of sets whose tiles were measured: by a CLIP, from their pixels and captions."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sarhpc.stages.inputs.clip_models import loadable_clip
from sarhpc.stages.work.leaving_out import leaving_out
from sarhpc.stages.work.measuring import Locate
from sarhpc.stages.work.text_vectors import Described, Reading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sarhpc.evaluation.compared import ComparedSets
    from sarhpc.evaluation.comparison_plan import ComparisonPlan
    from sarhpc.evaluation.config import EvaluateConfig
    from sarhpc.evaluation.tables import TileMeasures
    from sarhpc.evaluation.text import CaptionedVectors
    from sarhpc.evaluation.text_config import TextConfig

    View = Mapping[str, TileMeasures]

log = logging.getLogger(__name__)

BLOCK = "text"


def require_clip(cfg: TextConfig) -> Path:
    """The folder of the CLIP that reads images and captions; it loads.

    Raises:
        ConfigError: none is named, it cannot be loaded, or its parts are of other widths.
        MissingExtraError: packages that it needs are not installed.
    """
    return loadable_clip(cfg.model, "evaluate.text.model")


def with_text(
    compared: ComparedSets,
    planned: ComparisonPlan,
    views: Sequence[View],
    config: EvaluateConfig,
    clip: Path | None,
    folder: Path,
    locate: Locate = Path,
    report: Callable[[str], None] = log.info,
) -> ComparedSets:
    """The same with the block `text`; what could not be measured is said in it, and in a note.

    Tables of vectors in `folder` of the same tiles and model are kept.

    Args:
        compared: the sets as they are compared so far.
        planned: what is compared.
        views: measures of the tiles by set.
        config: of the evaluation.
        clip: folder of the CLIP; None where there is none.
        folder: of the evaluation.
        locate: finds a file by its name in the plan.
        report: is given a line at most every 30 s.
    """
    if config.text is None or clip is None:
        return compared
    from sarhpc.evaluation.text import TEXT_SCHEMA

    block: dict[str, Any] = {
        "schema": TEXT_SCHEMA,
        "classes": {name: list(phrases) for name, phrases in config.text.classes.items()},
        "sets": {},
        "left_out": [],
    }
    with leaving_out(block["left_out"].append):
        _fill(block, Reading(planned, folder, locate, report, config), views, clip)
    for reason in block["left_out"]:
        log.warning("E10, left out: %s", reason)
    notes = [f"E10, left out: {reason}" for reason in block["left_out"]]
    return dataclasses.replace(
        compared,
        notes=(*compared.notes, *notes),
        blocks={**compared.blocks, BLOCK: block},
    )


def _fill(block: dict[str, Any], reading: Reading, views: Sequence[View], clip: Path) -> None:
    """Measure each set into the block."""
    from sarhpc.captioning.captioners.clip import ClipScorer, load_clip
    from sarhpc.captioning.captioners.pretrained import model_name, pick_device, weights_digest
    from sarhpc.evaluation.compared import REAL
    from sarhpc.evaluation.text import common_classes, judge_text

    config = reading.config
    cfg = config.text
    assert cfg is not None
    sets = _in_first_view(views, reading.planned)
    described = {
        name: list(reading.captions(name, pixels, measures))
        for name, (pixels, measures) in sets.items()
    }
    _leave_out(block, described, cfg)
    revision = weights_digest(clip)
    block |= {"model": model_name(str(clip)), "revision": revision[:16]}
    block["contract"] = _other_pixels(clip, described)
    scorer = ClipScorer(
        load_clip(clip, pick_device(cfg.device)),
        name=block["model"],
        revision=revision,
        batch=cfg.batch,
        threads=cfg.threads,
    )
    for name, (pixels, measures) in sets.items():
        if not any(one.caption for one in described[name]):
            continue
        vectors = reading.vectors(name, pixels, measures, scorer)
        found = _captioned(vectors, described[name])
        block["sets"][name] = judge_text(found, scorer.read, cfg, config.bootstrap, config.seed)
    block["left_out"] += common_classes(block["sets"], REAL).values()


def _in_first_view(
    views: Sequence[View], planned: ComparisonPlan
) -> dict[str, tuple[str, TileMeasures]]:
    """Pixels and measures of each set, of the first view that has it."""
    found: dict[str, tuple[str, TileMeasures]] = {}
    for view, (pixels, _) in zip(views, planned.views, strict=True):
        for name, measures in view.items():
            found.setdefault(name, (pixels, measures))
    return found


def _leave_out(
    block: dict[str, Any], described: Mapping[str, Sequence[Described]], cfg: TextConfig
) -> None:
    """Say before anything is computed which sets have no captions, or none that name a class."""
    from sarhpc.evaluation.caption_content import class_of

    for name, images in described.items():
        captions = [one.caption for one in images if one.caption]
        if not captions:
            block["left_out"].append(f"no image of {name} has a caption")
        elif not any(class_of(caption, cfg.classes) for caption in captions):
            block["left_out"].append(
                f"no caption of {name} names one of the classes {', '.join(cfg.classes)} "
                f"(evaluate.text.classes); one says “{captions[0][:80]}”"
            )


def _other_pixels(clip: Path, described: Mapping[str, Sequence[Described]]) -> dict[str, Any]:
    """Set -> how its pixels differ from those that the CLIP was trained on, where known."""
    from sarhpc.shards.contract import differences, read_contract
    from sarhpc.shards.tile_contract import contract_of_tiles

    contract = read_contract(clip)
    if contract is None:
        return {}
    found = {
        name: differences(contract, contract_of_tiles(one.meta for one in images))
        for name, images in described.items()
        if images
    }
    return {name: lines for name, lines in found.items() if lines}


def _captioned(vectors: NDArray[np.float32], described: Sequence[Described]) -> CaptionedVectors:
    from sarhpc.evaluation.text import CaptionedVectors

    rows = [row for row, one in enumerate(described) if one.caption]
    return CaptionedVectors(
        vectors[rows],
        tuple(str(described[row].caption) for row in rows),
        tuple(described[row].group for row in rows),
        len(described) - len(rows),
    )
