"""Stage `evaluate`: real against synthetic, and the report of the whole run.

Its shards are parts of the sets, each measured into a table, and a last one that compares the sets.
A plan of an earlier version has the last one only, which then measures the parts as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.documents import read_json
from hpc.errors import ConfigError, VerificationError
from hpc.job.pipeline import Stage, Work
from hpc.publish import digest_file, publish_json, publish_text
from hpc.store.plan import Plan, ShardTask, make_plan
from hpc.store.rundir import RunDir
from sarhpc import __version__
from sarhpc.extras import is_installed
from sarhpc.stages.clip_train import CLIP_TRAIN
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.clip_models import clip_folder, unnamed_clip
from sarhpc.stages.inputs.model_layout import require_captioner
from sarhpc.stages.inputs.paths import require_out
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.spec import StageSpec
from sarhpc.stages.splits import require_held_out
from sarhpc.stages.work.measuring import (
    TABLES,
    fits_in,
    measure_part,
    measure_parts,
    parts_in,
    read_views,
)
from sarhpc.stages.work.memory import with_memory
from sarhpc.stages.work.sharded import (
    ShardResult,
    make_and_record,
    make_missing_shards,
    manifest_sha,
    sealed_records,
)
from sarhpc.stages.work.use import (
    USE,
    fit_one,
    fits_planned,
    left_out_block,
    plan_of_run,
    use_block,
)

if TYPE_CHECKING:
    from sarhpc.evaluation.compared import ComparedSets
    from sarhpc.evaluation.comparison_plan import ComparisonPlan
    from sarhpc.evaluation.image_sets import ImageSet
    from sarhpc.evaluation.report import Report
    from sarhpc.evaluation.tables import TileMeasures

UseBlock = tuple[dict[str, Any], list[str]]
"""Block of E12 in the result, and its lines."""

AUTOENCODER = "autoencoder"
"""Set of real tiles after encoding and decoding: what the decoder alone costs, and so the floor of
anything the model generates."""
LARGEST_PX = 1024
"""Side of tiles of unknown size, larger than what networks take."""


def evaluate_stage(config: RunConfig, upstream: Sequence[str]) -> Stage:
    """The stage that evaluates the corpus and writes the report."""
    return Stage(
        name="evaluate",
        needs=EVALUATE.needs_in(upstream),
        plan=plan_evaluation,
        work=lambda work: evaluate_run(work, upstream, config.cluster.workers),
        finish=require_gates if config.evaluate.gates_fail else None,
    )


def plan_evaluation(run: RunDir) -> Plan:
    """A shard for each part of the sets, and the last one, which names what is compared."""
    config = load_run_config(run)
    require_held_out(run, config)
    compared = _planned_comparison(run, config)
    inputs = {"real": manifest_sha(run, "caption"), "synthetic": manifest_sha(run, "generate")}
    if config.evaluate.text is not None and config.evaluate.text.model is None:
        inputs["clip"] = manifest_sha(run, CLIP_TRAIN.name)
    fits, left_out = _planned_use(run, config)
    last: dict[str, Any] = {**inputs, "compared": compared.facts()}
    last |= {"use_left_out": left_out} if left_out else {}
    shards = [*compared.parts, *fits, last]
    return make_plan("evaluate", shards, fingerprint=EVALUATE.fingerprint(config))


def _planned_use(run: RunDir, config: RunConfig) -> tuple[list[dict[str, Any]], str]:
    """The networks of E12 to train, or why there are none; nothing where it is not asked for."""
    if not config.evaluate.use.task:
        return [], ""
    from sarhpc.evaluation.use.split import UnusableSetsError

    try:
        return fits_planned(plan_of_run(run), {}), ""
    except UnusableSetsError as error:
        return [], str(error)


def _sets(run: RunDir, config: RunConfig) -> tuple[ImageSet, ImageSet]:
    """Real tiles of every split, and the corpus of this run."""
    from sarhpc.stages.inputs.named_sets import set_of_records
    from sarhpc.stages.run_report import SYNTHETIC, synthetic_shards

    return (
        set_of_records("the real set", sealed_records(run, "caption")),
        set_of_records(f"the set “{SYNTHETIC}”", synthetic_shards(run, config)[SYNTHETIC]),
    )


def _planned_comparison(run: RunDir, config: RunConfig) -> ComparisonPlan:
    from sarhpc.evaluation.comparison_plan import plan_comparison
    from sarhpc.stages.inputs.named_sets import set_of_records
    from sarhpc.stages.run_report import synthetic_shards

    real = set_of_records("the real set", sealed_records(run, "caption"))
    others = {
        name: set_of_records(f"the set “{name}”", records)
        for name, records in synthetic_shards(run, config).items()
    }
    planned = plan_comparison(real, others, config.evaluate, one_law=True)
    stored = [
        {**part, "files": [[run.stored(file), *rest] for file, *rest in part["files"]]}
        for part in planned.parts
    ]
    return dataclasses.replace(planned, parts=tuple(stored))


def evaluate_run(work: Work, upstream: Sequence[str], workers: int) -> None:
    """Measure the parts on all cores of the job, then compare in this process.

    Writes `evaluate/tables/*.parquet`, `evaluate/evaluation.json`, `report.json`, `report.html`.
    """
    parts = frozenset(
        task.id for task in work.plan.shards if "files" in task.inputs or USE in task.inputs
    )
    if parts or work.rank > 0:
        make_missing_shards(
            measure_shard, dataclasses.replace(work, stripe=parts), workers=workers, per_core=True
        )
    todo = work.todo()
    if work.rank > 0 or any(task.id in parts for task in todo):
        return
    for task in todo:
        make_and_record(
            lambda run, one: _compare_and_report(run, one, work.plan, upstream, workers),
            str(work.run.root),
            work.plan.stage,
            work.plan.id,
            work.attempt,
            task,
            work.lease,
        )


def measure_shard(run: RunDir, task: ShardTask) -> ShardResult:
    """Measure one part of a set and publish its table, or train one network of E12."""
    if USE in task.inputs:
        fitted = _fit_file(run.stage("evaluate"), task)
        tested = fit_one(task.inputs, fitted, run)
        digest = digest_file(fitted)
        return ShardResult(fitted, tested, digest.bytes, digest.sha256, {}, {"set": USE})
    table = run.stage("evaluate") / TABLES / f"{task.id}.parquet"
    tiles = measure_part(task.inputs, table, run.located)
    digest = digest_file(table)
    return ShardResult(table, tiles, digest.bytes, digest.sha256, {}, {"set": task.inputs["set"]})


def _compare_and_report(
    run: RunDir, task: ShardTask, plan: Plan, upstream: Sequence[str], workers: int
) -> ShardResult:
    from sarhpc.evaluation.comparison_plan import ComparisonPlan

    folder = run.stage("evaluate")
    if "compared" in task.inputs:
        parts = [shard.inputs for shard in plan.shards if "files" in shard.inputs]
        planned = ComparisonPlan.of_facts(task.inputs["compared"], parts)
    else:
        planned = _planned_comparison(run, load_run_config(run))
        measure_parts(parts_in(planned, folder, run), workers, folder)
    fits = [_fit_file(folder, shard) for shard in plan.shards if USE in shard.inputs]
    used = _use_result(fits, task.inputs.get("use_left_out", ""), load_run_config(run))
    report, compared = _report(run, planned, folder, upstream, used)
    path = folder / "evaluation.json"
    publish_json(path, compared.to_json())
    _publish_report(report, run.root)
    digest = digest_file(path)
    return ShardResult(path, compared.evaluation.real_tiles, digest.bytes, digest.sha256)


def _fit_file(folder: Path, task: ShardTask) -> Path:
    return folder / USE / f"{task.id}.json"


def _use_result(fits: Sequence[Path], left_out: str, config: RunConfig) -> UseBlock | None:
    """The block of E12 and its lines; None where it is not asked for."""
    if left_out:
        return left_out_block(left_out)
    return use_block(fits, config.evaluate) if fits else None


def require_gates(work: Work) -> None:
    """Raise VerificationError unless the corpus passes its gates; the report is there already."""
    document = read_json(work.run.stage("evaluate") / "evaluation.json")
    failed = [gate for gate in document.get("gates", []) if gate["verdict"] != "pass"]
    if failed:
        named = "; ".join(f"{gate['name']} {gate['verdict']}" for gate in failed)
        raise VerificationError(
            f"the corpus does not pass {len(failed)} of its gates ({named}), and "
            f"evaluate.gates_fail is set; see {work.run.root / 'report.html'}"
        )


def evaluate_elsewhere(run: RunDir, upstream: Sequence[str], folder: Path) -> Path:
    """Evaluate a run and write everything into `folder`; the page. The run is only read.

    Raises:
        ConfigError: the folder is inside the run.
        HpcError: stages that it compares are not sealed.
    """
    require_out(folder, [run.root])
    config = load_run_config(run)
    planned = _planned_comparison(run, config)
    fits, left_out = _planned_use(run, config)
    networks = fits_in(fits, folder, run)
    parts = [*parts_in(planned, folder, run), *networks]
    measure_parts(parts, config.cluster.workers, folder)
    used = _use_result([part.table for part in networks], left_out, config)
    report, compared = _report(run, planned, folder, upstream, used)
    publish_json(folder / "evaluation.json", compared.to_json())
    return _publish_report(report, folder)


def _publish_report(report: Report, folder: Path) -> Path:
    from sarhpc.evaluation.report import to_json
    from sarhpc.evaluation.report_page import render

    publish_json(folder / "report.json", to_json(report))
    publish_text(folder / "report.html", render(report))
    return folder / "report.html"


def _report(
    run: RunDir,
    planned: ComparisonPlan,
    folder: Path,
    upstream: Sequence[str],
    used: UseBlock | None,
) -> tuple[Report, ComparedSets]:
    from sarhpc.evaluation.compared import with_use
    from sarhpc.stages.run_report import run_report

    config = load_run_config(run)
    views = read_views(planned, folder, config.evaluate)
    compared = _compared(run, config, planned, views, folder)
    compared = dataclasses.replace(compared, facts={**compared.facts, "version": __version__})
    if used is not None:
        compared = with_use(compared, *used, config.evaluate)
    compared = with_memory(
        compared, planned, _sets(run, config), config.evaluate, folder, config.cluster.workers, run
    )
    return run_report(run, upstream, compared, folder), compared


def _compared(
    run: RunDir,
    config: RunConfig,
    planned: ComparisonPlan,
    views: Sequence[Mapping[str, TileMeasures]],
    folder: Path,
) -> ComparedSets:
    """The sets of a run compared, with the real tiles through the autoencoder as one of them."""
    from sarhpc.evaluation.compared import REAL, compare, with_copies
    from sarhpc.stages.run_report import SYNTHETIC
    from sarhpc.stages.work.class_levels import with_classes
    from sarhpc.stages.work.feature_distances import with_features
    from sarhpc.stages.work.orientation import with_orientation
    from sarhpc.stages.work.reconstruction import reconstruct_tiles
    from sarhpc.stages.work.text import with_text

    real = views[0][REAL]
    compared = compare(views, config.evaluate, SYNTHETIC, planned.facts())
    compared = with_orientation(compared, planned, views, config.evaluate, run.located)
    compared = with_classes(compared, planned, views, run.located)
    compared = with_features(compared, planned, views, config.evaluate, folder, run.located)
    clip = _clip_folder(run, config)
    compared = with_text(compared, planned, views, config.evaluate, clip, folder, run.located)
    decoded = reconstruct_tiles(
        run.stage("export") / "model" / "vae",
        [(run.located(file), row) for file, row in real.places],
        planned.pixels,
        planned.px,
        config.evaluate.autoencoder_s,
    )
    if decoded.features is None:
        return dataclasses.replace(compared, notes=(*compared.notes, decoded.note))
    return with_copies(
        compared, AUTOENCODER, decoded.features, real, decoded.rows, config.evaluate, [decoded.note]
    )


def _clip_folder(run: RunDir, config: RunConfig) -> Path | None:
    """Folder of the CLIP that reads images and captions, the run's own where none is named."""
    text = config.evaluate.text
    return None if text is None else clip_folder(run, text.model)


def check_settings(config: RunConfig) -> None:
    """Raise ConfigError unless real and synthetic can be compared as configured."""
    from sarhpc.evaluation.config import LEAST_PX, check_config

    check_config(config.evaluate)
    text = config.evaluate.text
    if text is not None and text.model is None and config.clip_train is None:
        raise unnamed_clip("evaluate.text.model")
    imported = config.imported
    side = config.tile.tile_px if imported is None else imported.px
    key = "tile.tile_px" if imported is None else "imported.px"
    if side is not None and side < LEAST_PX:
        raise ConfigError(
            f"{key}={side}: the evaluation measures speckle and texture in "
            f"{LEAST_PX} px or more; give larger tiles, or no corpus (generate=null)"
        )


def check_inputs(run: RunDir, config: RunConfig) -> None:
    """Raise ConfigError unless the models that the evaluation uses can be used.

    They are loaded where torch is installed. A login node whose jobs have a container may lack it;
    then only the files of the CLIP are checked.
    """
    from sarhpc.stages.work.feature_distances import require_backbone
    from sarhpc.stages.work.memory import require_shards
    from sarhpc.stages.work.text import require_clip

    require_shards(config.evaluate.memory)
    if not is_installed("caption"):
        for name in models_of(config):
            require_captioner("evaluate.text.model", name)
        return
    if config.evaluate.text is not None and config.evaluate.text.model is not None:
        require_clip(config.evaluate.text)
    imported = config.imported
    sides = [config.tile.tile_px if imported is None else imported.px]
    if config.generate is not None:
        sides += [config.generate.height_px, config.generate.width_px]
    # Third-party tiles may have any size: then a network is tried on more than any takes.
    side = min((px for px in sides if px), default=LARGEST_PX)
    require_backbone(config.evaluate.features, (side, side))


def models_of(config: RunConfig) -> list[str]:
    """The CLIP that reads images and captions, where one is named."""
    text = config.evaluate.text
    return [] if text is None or text.model is None else [text.model]


EVALUATE: StageSpec = StageSpec(
    name="evaluate",
    help="compare synthetic with real images and write the report",
    branches=("evaluate",),
    needs_extra=lambda _: "generate",
    build=evaluate_stage,
    needs=("caption", "clip-train", "generate", "compare"),
    enabled=lambda config: config.generate is not None,
    check=check_settings,
    check_inputs=check_inputs,
    models=models_of,
    request="gpu_briefly",
)
