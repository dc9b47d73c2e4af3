"""Two sets of images on disk compared outside a run: tables, numbers, gates and a page."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.errors import DataError, VerificationError
from hpc.publish import publish_json, publish_text
from sarhpc.evaluation.comparison_plan import ComparisonPlan, plan_comparison
from sarhpc.extras import is_installed
from sarhpc.shards.subset import spread
from sarhpc.stages.inputs.named_sets import named_set
from sarhpc.stages.inputs.paths import require_out
from sarhpc.stages.work.measuring import fits_in, measure_parts, parts_in, read_views
from sarhpc.stages.work.memory import require_shards, with_memory
from sarhpc.stages.work.use import (
    NOT_INSTALLED,
    USE,
    common_of_sets,
    fits_planned,
    left_out_block,
    plan_of_sets,
    use_block,
)

if TYPE_CHECKING:
    from sarhpc.evaluation.compared import ComparedSets
    from sarhpc.evaluation.config import EvaluateConfig
    from sarhpc.evaluation.image_sets import ImageSet
    from sarhpc.evaluation.report import Picture
    from sarhpc.evaluation.tables import TileMeasures

SYNTHETIC = "synthetic"
NO_ORIENTATION = (
    "The look direction (E8) was not measured: it needs torch, pip install 'sarhpc[caption]'."
)


def evaluate_sets(
    real: Path,
    synthetic: Path,
    out: Path,
    config: EvaluateConfig,
    suites: Sequence[str] | None = None,
    workers: int = 1,
    report: Callable[[str], None] = print,
) -> ComparedSets:
    """The synthetic set against the real one; `out` gets tables, `evaluation.json`, `report.html`.

    Parts that `out` has tables of, of the same images, are not measured again.

    Args:
        real: a run, a stage of one, a folder of shards or images, or a tar.
        synthetic: the same.
        out: folder to write into.
        config: sizes, seeds and gates.
        suites: parts of the suite; None takes all.
        workers: processes that measure.
        report: is given a line on what is done, at most every 30 s.

    Raises:
        ConfigError: the sets cannot be compared, or the folder is one of them.
        VerificationError: a set has too few images, or some that cannot be read or measured.
    """
    from sarhpc.evaluation.compared import REAL, compare, metrics_of
    from sarhpc.evaluation.config import check_config
    from sarhpc.stages.work.class_levels import with_classes
    from sarhpc.stages.work.feature_distances import require_backbone, with_features
    from sarhpc.stages.work.text import with_text

    config = _with_suites(config, suites or ())
    check_config(config)
    metrics_of(suites)
    require_out(out, (real, synthetic))
    if not suites or "memory" in suites:
        require_shards(config.memory)
    try:
        sets = {REAL: named_set(real, REAL), SYNTHETIC: named_set(synthetic, SYNTHETIC)}
        planned = plan_comparison(sets[REAL], {SYNTHETIC: sets[SYNTHETIC]}, config)
        planned = _with_same_files_said(planned, sets[REAL], sets[SYNTHETIC])
        features = not suites or "features" in suites
        if features:
            require_backbone(config.features, planned.px)
        clip = _clip_asked(config, suites)
        fits, left_out = _planned_use(real, synthetic, config, suites)
        if left_out:
            report(f"E12 was left out: {left_out}.")
        parts = [*parts_in(planned, out), *fits_in(fits, out)]
        measure_parts(parts, workers, out, report)
        views = read_views(planned, out, config)
        _require_measurable(views[0])
        facts = {**planned.facts(), "real": str(real), SYNTHETIC: str(synthetic)}
        compared = with_classes(compare(views, config, SYNTHETIC, facts, suites), planned, views)
        compared = _with_orientation(compared, planned, views, config, suites, report)
        if features:
            compared = with_features(compared, planned, views, config, out, report=report)
        if fits or left_out:
            compared = _with_use(compared, fits, left_out, out, config)
        compared = with_text(compared, planned, views, config, clip, out, report=report)
        if not suites or "memory" in suites:
            both = sets[REAL], sets[SYNTHETIC]
            compared = with_memory(compared, planned, both, config, out, workers)
    except DataError as error:
        raise VerificationError(str(error)) from error
    publish_json(out / "evaluation.json", compared.to_json())
    _publish_page(out, planned, compared, config)
    _require_result(compared, suites or ())
    return compared


def _with_suites(config: EvaluateConfig, suites: Sequence[str]) -> EvaluateConfig:
    """The same with the defaults of measures that are asked for by name and not configured."""
    from sarhpc.evaluation.config import MemoryConfig
    from sarhpc.evaluation.use.config import CLASSIFICATION

    if USE in suites and not config.use.task:
        use = dataclasses.replace(config.use, task=CLASSIFICATION)
        config = dataclasses.replace(config, use=use)
    if "memory" in suites and config.memory is None:
        config = dataclasses.replace(config, memory=MemoryConfig())
    return config


def _require_result(compared: ComparedSets, suites: Sequence[str]) -> None:
    """Raise VerificationError if all that was asked for by name was left out.

    Gates on other measures pass then, and an exit code of 0 would read as a verdict.
    """
    reasons = [_left_out(name, compared.blocks.get(name, {})) for name in suites]
    if suites and all(reasons):
        raise VerificationError(f"nothing that was asked for was measured: {'; '.join(reasons)}")


def _left_out(name: str, block: Mapping[str, Any]) -> str:
    """Why the block of a measure has nothing on the synthetic set; empty where it has."""
    if name == "text":
        of_set = block.get("sets", {}).get(SYNTHETIC, {"left_out": ""})
        reasons = [*block.get("left_out", ()), of_set.get("left_out")]
        return "; ".join(filter(None, reasons)) if "left_out" in of_set else ""
    if name == USE:
        return "" if "scores" in block else str(block.get("reason", ""))
    return str(block.get("left_out") or "") if name == "memory" else ""


def _with_same_files_said(
    planned: ComparisonPlan, real: ImageSet, synthetic: ImageSet
) -> ComparisonPlan:
    """The same, with a note where the synthetic images are real ones."""
    if {*map(os.path.realpath, synthetic.files)} - {*map(os.path.realpath, real.files)}:
        return planned
    note = f"All files of {synthetic.name} are files of {real.name}, which is compared with itself."
    return dataclasses.replace(planned, notes=(note, *planned.notes))


def _require_measurable(view: Mapping[str, TileMeasures]) -> None:
    """Raise VerificationError if images of a set cannot be measured."""
    from sarhpc.evaluation.compared import faults_of

    faults = faults_of(view)
    if faults:
        named = "; ".join(faults).replace(" and are left out", "")
        raise VerificationError(f"{named}; repair them or take them out of the set")


def _with_orientation(
    compared: ComparedSets,
    planned: ComparisonPlan,
    views: Sequence[Mapping[str, TileMeasures]],
    config: EvaluateConfig,
    suites: Sequence[str] | None,
    report: Callable[[str], None],
) -> ComparedSets:
    """The same with the look direction, where it is asked for and torch is installed."""
    from sarhpc.stages.work.orientation import with_orientation

    if "orientation" in (suites or ()) or (not suites and is_installed("caption")):
        return with_orientation(compared, planned, views, config)
    if suites:
        return compared
    report(NO_ORIENTATION)
    return dataclasses.replace(compared, notes=(*compared.notes, NO_ORIENTATION))


def _planned_use(
    real: Path, synthetic: Path, config: EvaluateConfig, suites: Sequence[str] | None
) -> tuple[list[dict[str, Any]], str]:
    """The networks of E12 to train, or why there are none; nothing where it is not asked for.

    Raises:
        DataError: nothing can be learned from the sets, and nothing else is asked for.
    """
    if not config.use.task or (suites and USE not in suites):
        return [], ""
    if not is_installed("caption"):
        return [], NOT_INSTALLED
    from sarhpc.evaluation.use.split import UnusableSetsError

    try:
        plan = plan_of_sets(real, synthetic, config)
        return fits_planned(plan, common_of_sets(real, synthetic, config)), ""
    except UnusableSetsError as error:
        if [*(suites or ())] == [USE]:
            raise
        return [], str(error)


def _with_use(
    compared: ComparedSets,
    fits: Sequence[Mapping[str, Any]],
    left_out: str,
    out: Path,
    config: EvaluateConfig,
) -> ComparedSets:
    from sarhpc.evaluation.compared import with_use

    if left_out:
        return with_use(compared, *left_out_block(left_out), config)
    block, lines = use_block([part.table for part in fits_in(fits, out)], config)
    return with_use(compared, block, lines, config)


def _clip_asked(config: EvaluateConfig, suites: Sequence[str] | None) -> Path | None:
    """Folder of the CLIP that reads images and captions; None where that is not asked.

    Raises:
        ConfigError: it is asked and no CLIP is named, or that does not load.
    """
    from sarhpc.evaluation.text_config import TextConfig
    from sarhpc.stages.work.text import require_clip

    asked = "text" in suites if suites else config.text is not None
    return require_clip(config.text or TextConfig()) if asked else None


def _publish_page(
    out: Path, planned: ComparisonPlan, compared: ComparedSets, config: EvaluateConfig
) -> None:
    from hpc.config import to_yaml
    from sarhpc.evaluation.headline import Headline
    from sarhpc.evaluation.report import Report, to_json
    from sarhpc.evaluation.report_page import render

    facts = compared.facts
    report = Report(
        name=f"{facts[SYNTHETIC]} against {facts['real']}",
        facts={
            "real": facts["real"],
            "synthetic": facts[SYNTHETIC],
            "pixels": planned.pixels,
            "size": f"{planned.px[0]} x {planned.px[1]} px",
            **{f"{name} tiles measured": str(count) for name, count in planned.drawn.items()},
        },
        config_yaml=to_yaml(config),
        stages=[],
        examples={name: list(_examples(planned, name, config.gallery)) for name in planned.drawn},
        evaluation=compared.evaluation,
        features=compared.measured,
        gates=compared.gates,
        notes=compared.notes,
        headline=Headline(
            asked="how close the synthetic set is to the real one",
            came=" and ".join(f"{n:,} {name}" for name, n in planned.drawn.items())
            + f" images measured as {planned.pixels}",
            places={
                "Real": str(facts["real"]),
                "Synthetic": str(facts[SYNTHETIC]),
                "Numbers": str(out / "evaluation.json"),
            },
        ),
        blocks=compared.blocks,
        folder=out,
    )
    publish_json(out / "report.json", to_json(report))
    publish_text(out / "report.html", render(report))


def _examples(planned: ComparisonPlan, name: str, count: int) -> Iterator[Picture]:
    """Some of the images of a set as they were measured, in 8 bits for display."""
    import numpy as np

    from sarhpc.evaluation.report import Picture
    from sarhpc.shards.stretch import displayed
    from sarhpc.stages.work.measuring import part_pixels

    places = [
        (part, number)
        for part in planned.parts
        if part["set"] == name
        for number in range(sum(len(rows) for _, rows, *_ in part["files"]))
    ]
    for part, number in spread(places, count):
        key, pixels = part_pixels(part, number)
        codes = pixels
        if pixels.dtype != np.uint8:
            codes = np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
        yield Picture(displayed(codes, {}), key)
