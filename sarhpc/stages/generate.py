"""Stage `generate`: the synthetic corpus, made by the exported model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from hpc.job.pipeline import Stage, Work
from hpc.publish import publish_json
from hpc.store.ledger import Record
from hpc.store.plan import Plan, ShardTask, make_plan
from hpc.store.rundir import RunDir
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.scenes.checks import image_size
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.contracts import contract_for, contract_notes
from sarhpc.stages.inputs.controls import (
    check_control_inputs,
    check_trained_layer,
    control_notes,
    first_layers,
    planned_controls,
)
from sarhpc.stages.inputs.gate_limits import calibrated, check_gate
from sarhpc.stages.inputs.image_size import size_of_images, size_of_tiles, with_planned_size
from sarhpc.stages.inputs.other_classes import check_class_model
from sarhpc.stages.inputs.paths import data_root
from sarhpc.stages.inputs.prompt_text import prompt_template
from sarhpc.stages.inputs.prompts import evenly_by_class, held_out_splits, known_prompts
from sarhpc.stages.inputs.sampling import check_sampled, require_sampled
from sarhpc.stages.inputs.scenes import check_scene_size, planned_scene, scene_notes
from sarhpc.stages.inputs.sizes import assumed_side, size_notes
from sarhpc.stages.inputs.source_images import (
    check_source_images,
    descriptions,
    images_of_shard,
    with_sources,
)
from sarhpc.stages.planned_corpus import (
    COVERAGE_FILE,
    check_table,
    coverage_so_far,
    images_of,
    requests_of,
    table_shards,
)
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.spec import StageSpec, pass_all
from sarhpc.stages.splits import require_held_out
from sarhpc.stages.sweep_preview import sweep_lines
from sarhpc.stages.table_preview import table_lines
from sarhpc.stages.work.image_shards import generated_shard
from sarhpc.stages.work.packaging import image_gate_facts, package_run
from sarhpc.stages.work.shard_gates import QUARANTINE, after_nothing_accepted, quarantined_with
from sarhpc.stages.work.sharded import (
    ShardResult,
    make_missing_shards,
    remove_stale_files,
    sealed_records,
)

PICTURE_BYTES_PER_PX = 1.15
MASTER_BYTES_PER_PX = 2.0


def generate_stage(config: RunConfig, upstream: Sequence[str]) -> Stage:
    """The stage that generates the corpus with the exported model."""
    return Stage(
        name="generate",
        needs=_needs(config, upstream),
        plan=plan_corpus,
        work=lambda work: _make_corpus(work, config),
        finish=package,
        beside=quarantined_with,
    )


def _needs(config: RunConfig, upstream: Sequence[str]) -> tuple[str, ...]:
    """The stages that the corpus waits for: also `clip-train` where its CLIP judges images."""
    gate = settings(config).gate
    classes = None if gate is None else gate.other_class
    trained = ("clip-train",) if classes is not None and classes.model is None else ()
    return tuple(n for n in upstream if n in trained or n in GENERATE.needs_in(upstream))


def _make_corpus(work: Work, config: RunConfig) -> None:
    """Make the missing shards; a gate that accepts no image, or lack of memory, ends the stage."""
    from sarhpc.generation.gate_errors import NothingAcceptedError
    from sarhpc.generation.scenes.memory import SceneMemoryError

    make_missing_shards(
        make_corpus_shard,
        work,
        workers=config.cluster.workers,
        hopeless=(NothingAcceptedError, SceneMemoryError),
    )


def settings(config: RunConfig) -> GenerateConfig:
    """The generation settings of a run that has them, with the prompt template that applies."""
    assert config.generate is not None
    return dataclasses.replace(config.generate, prompt_template=prompt_template(config))


def prompts_of(run: RunDir, config: RunConfig) -> list[str] | None:
    """Captions of held-out tiles, balanced over classes, unless the configuration names prompts.

    Where layers steer, each tile's own caption, in the order in which the tiles steer; for image to
    image, a prompt or caption for each image that is begun with.

    Raises:
        DataError: the splits that they would come from are empty.
    """
    generate = settings(config)
    if generate.image_to_image is not None:
        if generate.image_to_image.images is None:
            require_held_out(run, config)
        return descriptions(run, config, generate)
    if generate.prompts or generate.prompts_file:
        return None
    require_held_out(run, config)
    layers = first_layers(run, config)
    if layers is not None:
        return [layers.caption(number) for number in range(len(layers))]
    splits = held_out_splits(run, config.evaluate.real_splits)
    return [p.caption for p in evenly_by_class(list(known_prompts(run, splits)))]


def plan_corpus(run: RunDir) -> Plan:
    """Shards of (prompt, seed); names the model by its digest."""
    from sarhpc.generation.adapters.chosen import planned_adapters
    from sarhpc.generation.plan import plan_generation

    config = load_run_config(run)
    [export] = sealed_records(run, "export")
    require_sampled(Path(export.path), settings(config))
    if settings(config).table is not None:
        shards = table_shards(run, config)
    else:
        shards = plan_generation(settings(config), prompts_of(run, config))
    _require_controls(config, Path(export.path))
    contract = contract_for(Path(export.path), settings(config))
    images = sum(images_of_shard(shard) for shard in shards)
    planned = size_of_tiles(run, settings(config), Path(export.path))
    shown = size_of_images(run, settings(config), Path(export.path))
    shards = with_sources(run, config, settings(config), shards, contract, shown)
    model = {
        "model": run.stored(export.path),
        "model_sha": export.sha256,
        "contract": None if contract is None else contract.to_json(),
        **planned_adapters(Path(export.path), settings(config)),
        **planned,
        **planned_scene(run, config, settings(config), Path(export.path), planned),
        **planned_controls(run, config),
        **calibrated(
            run,
            config,
            Path(export.path),
            contract,
            images,
            (request for shard in shards for request in requests_of(run, shard)),
        ),
    }
    return make_plan(
        "generate",
        [{**shard, **model} for shard in shards],
        fingerprint=GENERATE.fingerprint(config),
    )


def _require_controls(config: RunConfig, model: Path) -> None:
    """Raise unless each control fits the exported model, before any image is planned."""
    if settings(config).steer is None:
        return
    from sarhpc.generation.model import require_steering

    require_steering(model, settings(config))


def make_corpus_shard(run: RunDir, task: ShardTask) -> ShardResult:
    """Generate and publish one shard of the corpus."""
    config = load_run_config(run)
    root = data_root(run, config) / "synthetic"
    path = root / f"{task.id}.tar"
    model = run.located(task.inputs["model"])
    cfg = with_planned_size(settings(config), task.inputs)
    return generated_shard(run, task, model, cfg, path, GENERATE.fingerprint(config))


def package(work: Work) -> None:
    """Publish index, card and metadata of the finished corpus."""
    config = load_run_config(work.run)
    for folder in ("synthetic", QUARANTINE):
        remove_stale_files(data_root(work.run, config) / folder)
    records = list(work.ledger.records().values())
    _require_accepted(work.run, records)
    package_run(work.run, config, records, GENERATE.fingerprint(config))
    coverage = coverage_so_far(work.run, config)
    if coverage is not None:
        publish_json(data_root(work.run, config) / "synthetic" / COVERAGE_FILE, coverage.to_json())


def _require_accepted(run: RunDir, records: Sequence[Record]) -> None:
    """Raise NothingAcceptedError where a gate left no image."""
    from sarhpc.corpus.card_gate import gate_line
    from sarhpc.generation.gate_errors import NothingAcceptedError

    gate = image_gate_facts(run, records)
    if gate is not None and gate.accepted == 0:
        folder = data_root(run, load_run_config(run)) / QUARANTINE
        raise NothingAcceptedError(
            f"the corpus is empty. {gate_line(gate)}. {after_nothing_accepted(run, folder)}"
        )


def check_generation(cfg: GenerateConfig) -> None:
    """Raise ConfigError unless images can be generated as configured, and prompts be read."""
    from sarhpc.generation.plan import check_config

    pass_all(lambda: check_config(cfg), lambda: _require_prompts(cfg))


def _require_prompts(cfg: GenerateConfig) -> None:
    from sarhpc.generation.controls.checks import require_prompts
    from sarhpc.generation.plan import read_prompts

    require_prompts(cfg)
    read_prompts(cfg)


def _check(config: RunConfig) -> None:
    pass_all(
        lambda: check_generation(settings(config)),
        lambda: check_table(config),
        lambda: check_gate(config),
        lambda: check_trained_layer(config),
    )


def shards_of(config: RunConfig, images: int) -> int:
    """Shards of so many images; in a sweep a shard holds whole layouts."""
    from sarhpc.generation.sweeps.settings import images_per_layout, layouts_per_shard

    cfg = settings(config)
    return math.ceil(images / (layouts_per_shard(cfg) * images_per_layout(cfg)))


def _shards(config: RunConfig) -> int | None:
    images = images_of(config)
    return None if images is None else shards_of(config, images)


def shard_bytes(config: RunConfig) -> float:
    """About how many bytes a shard of generated images has at most."""
    return sum(_image_bytes(config)) * settings(config).shard_samples


def _image_bytes(config: RunConfig) -> tuple[float, float]:
    """About how many bytes the 8-bit picture of an image has, and its 16-bit master."""
    cfg = settings(config)
    rows, columns = image_size(cfg)
    pixels = rows * columns if rows and columns else assumed_side(config) ** 2
    return PICTURE_BYTES_PER_PX * pixels, MASTER_BYTES_PER_PX * pixels


def check_inputs(run: RunDir, config: RunConfig) -> None:
    """Raise ConfigError or DataError if what the images are made with is not of use."""
    check_class_model(config)
    check_sampled(run, config)
    check_scene_size(config)
    check_source_images("generate.image_to_image", settings(config).image_to_image)
    rows, columns = image_size(settings(config))
    side = assumed_side(config)
    check_control_inputs(config, (rows or side, columns or side))


def models_of(config: RunConfig) -> list[str]:
    """The CLIP that tells images of another class, where one is named."""
    gate = settings(config).gate
    model = None if gate is None or gate.other_class is None else gate.other_class.model
    return [] if model is None else [model]


def dry_run_notes(config: RunConfig, plan: Plan | None) -> list[str]:
    """Bytes of an image, and models without a contract."""
    picture, master = _image_bytes(config)
    size = (
        f"an image: about {(picture + master) / 1e3:.1f} kB, {picture / 1e3:.1f} of them the 8-bit "
        f"picture and {master / 1e3:.1f} the 16-bit master, which needs a contract of the model"
    )
    return [size, *contract_notes(plan)]


def _gate_notes(config: RunConfig) -> list[str]:
    gate = settings(config).gate
    if gate is None:
        return []
    return [
        f"each image is judged by limits that reject {gate.false_rejects:.2g} of real tiles; a "
        f"quarantined one is kept and drawn again up to {gate.redraws} times, so that there may be "
        f"{gate.redraws + 1} times as many images to sample and store"
    ]


GENERATE: StageSpec = StageSpec(
    name="generate",
    help="generate the synthetic corpus",
    branches=("generate",),
    needs_extra=lambda _: "generate",
    build=generate_stage,
    needs=("export",),
    enabled=lambda config: config.generate is not None,
    check=_check,
    check_inputs=check_inputs,
    models=models_of,
    sharded=True,
    shards=_shards,
    shard_bytes=shard_bytes,
    # The second one is of its quarantined images.
    shard_files=lambda config: 1 if settings(config).gate is None else 2,
    notes=lambda config, plan: [
        *size_notes(config),
        *table_lines(config),
        *sweep_lines(config),
        *dry_run_notes(config, plan),
        *scene_notes(config),
        *control_notes(config, images_of(config)),
        *_gate_notes(config),
    ],
    request="array",
)
