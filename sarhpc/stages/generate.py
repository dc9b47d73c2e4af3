"""Stage `generate`: the synthetic corpus, made by the exported model."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.job.pipeline import Stage, Work
from hpc.job.stop import stop_signalled
from hpc.publish import publish_json
from hpc.store.plan import Plan, ShardTask, make_plan
from hpc.store.rundir import RunDir, open_run
from hpc.store.tree import digest_tree
from sarhpc.diffusion.config import LAYERS
from sarhpc.generation.config import GenerateConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.contracts import contract_for, contract_notes
from sarhpc.stages.inputs.paths import data_root
from sarhpc.stages.inputs.prompts import (
    evenly_by_class,
    held_out_splits,
    known_prompts,
    sample_shards,
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
from sarhpc.stages.spec import StageSpec
from sarhpc.stages.table_preview import table_lines
from sarhpc.stages.work.packaging import package_run
from sarhpc.stages.work.sharded import (
    ShardResult,
    make_missing_shards,
    manifest_sha,
    remove_stale_files,
    sealed_records,
)

if TYPE_CHECKING:
    from sarhpc.generation.steering import SteeringLayers

PICTURE_BYTES_PER_PX = 1.15
MASTER_BYTES_PER_PX = 2.0


def generate_stage(config: RunConfig, upstream: Sequence[str]) -> Stage:
    """The stage that generates the corpus with the exported model."""
    return Stage(
        name="generate",
        needs=GENERATE.needs_in(upstream),
        plan=plan_corpus,
        work=lambda work: make_missing_shards(
            make_corpus_shard, work, workers=config.cluster.workers
        ),
        finish=package,
    )


def settings(config: RunConfig) -> GenerateConfig:
    """The generation settings of a run that has them."""
    assert config.generate is not None
    return config.generate


def prompts_of(run: RunDir, config: RunConfig) -> list[str] | None:
    """Captions of held-out tiles, balanced over classes, unless the configuration names prompts.

    Where layers steer, each tile's own caption, in the order in which the tiles steer.
    """
    generate = settings(config)
    if generate.prompts or generate.prompts_file:
        return None
    layers = steering_layers(run, config)
    if layers is not None:
        return [layers.caption(number) for number in range(len(layers))]
    splits = held_out_splits(run, config.evaluate.real_splits)
    return [p.caption for p in evenly_by_class(list(known_prompts(run, splits)))]


def steering_layers(run: RunDir, config: RunConfig) -> SteeringLayers | None:
    """What steers the images, if anything does.

    Raises:
        DataError: there are no tiles to steer by.
    """
    from sarhpc.generation.steering import SteeringLayers

    steer = settings(config).steer
    if steer is None:
        return None
    if steer.shards is None:
        splits = held_out_splits(run, config.evaluate.real_splits)
        return SteeringLayers(sample_shards(run, splits), steer)
    return SteeringLayers(sorted(Path(steer.shards).rglob("*.tar")), steer)


def _steering_facts(run: RunDir, config: RunConfig) -> dict[str, str]:
    """Digest of the shards that steer and the member that images keep of them, for the plan."""
    steer = settings(config).steer
    if steer is None:
        return {}
    named = steer.shards is not None
    digest = digest_tree(Path(str(steer.shards))).sha256 if named else manifest_sha(run, "caption")
    return {"layers_sha": digest, "layer_member": LAYERS[steer.layer]}


def plan_corpus(run: RunDir) -> Plan:
    """Shards of (prompt, seed); names the model by its digest."""
    from sarhpc.generation.plan import plan_generation

    config = load_run_config(run)
    [export] = sealed_records(run, "export")
    if settings(config).table is not None:
        shards = table_shards(run, config)
    else:
        shards = plan_generation(settings(config), prompts_of(run, config))
    contract = contract_for(Path(export.path), settings(config))
    model = {
        "model": run.stored(export.path),
        "model_sha": export.sha256,
        "contract": None if contract is None else contract.to_json(),
        **_named_adapter(config, export.path),
        **_steering_facts(run, config),
    }
    return make_plan(
        "generate",
        [{**shard, **model} for shard in shards],
        fingerprint=GENERATE.fingerprint(config),
    )


def _named_adapter(config: RunConfig, model: str) -> dict[str, str]:
    """Digest of the adapter that the configuration names; one in the model's folder is in its."""
    from sarhpc.generation.adapter import adapter_file

    cfg = settings(config)
    file = adapter_file(Path(model), cfg)
    if cfg.adapter is None or file is None:
        return {}
    with file.open("rb") as opened:
        return {"adapter_sha": hashlib.file_digest(opened, "sha256").hexdigest()}


def make_corpus_shard(run: RunDir, task: ShardTask) -> ShardResult:
    """Generate and publish one shard of the corpus."""
    config = load_run_config(run)
    root = data_root(run, config) / "synthetic"
    path = root / f"{task.id}.tar"
    model = run.located(task.inputs["model"])
    return generated_shard(run, task, model, settings(config), path, GENERATE.fingerprint(config))


def generated_shard(
    run: RunDir,
    task: ShardTask,
    model: Path,
    cfg: GenerateConfig,
    path: Path,
    fingerprint: str,
    image_member: str = "sar.png",
) -> ShardResult:
    """Generate the planned shard by `model`, and publish it at `path`.

    Args:
        run: in which it is planned.
        task: the shard.
        model: the diffusers folder.
        cfg: how images are made.
        path: of the tar.
        fingerprint: of the configuration, which the images carry.
        image_member: `sar.png`, or `optic.png` for images that show no radar.
    """
    from sarhpc.generation.sampler import Provenance, generate_shard
    from sarhpc.generation.steering import with_layers
    from sarhpc.shards.writer import write_shard

    provenance = Provenance(task.inputs["model_sha"], fingerprint)
    pipeline = _pipeline(model, cfg)
    layers = None if cfg.steer is None else _indexed_layers(run.root)
    generated = generate_shard(
        task.number,
        task.inputs,
        cfg,
        pipeline,
        provenance,
        stop=lambda: stop_signalled() or run.stop_file.exists(),
        layers=layers,
        image_member=image_member,
        requests=requests_of(run, task.inputs),
    )
    samples = generated.samples
    # A shard that was planned before layers were kept is made as its siblings were.
    if layers is not None and "layer_member" in task.inputs:
        samples = with_layers(samples, layers, task.inputs["layer_member"], task.inputs["first"])
    summary = write_shard(path, samples)
    return ShardResult(path, summary.samples, summary.bytes, summary.sha256, generated.rejected)


# A worker process keeps the pipeline it loaded last: one load per worker and model, not per shard.
_loaded: dict[tuple[str, str], Any] = {}


def _pipeline(model: Path, cfg: GenerateConfig) -> Any:
    from sarhpc.generation.model import load_pipeline

    key = (str(model), f"{cfg.scheduler} {cfg.dtype} {cfg.adapter} {cfg.adapter_weight}")
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = load_pipeline(model, cfg)
    return _loaded[key]


@functools.lru_cache(maxsize=1)
def _indexed_layers(root: Path) -> SteeringLayers | None:
    """What steers, indexed once a worker: the whole corpus is steered by the same shards."""
    run = open_run(root)
    return steering_layers(run, load_run_config(run))


def package(work: Work) -> None:
    """Publish index, card and metadata of the finished corpus."""
    config = load_run_config(work.run)
    remove_stale_files(data_root(work.run, config) / "synthetic")
    records = list(work.ledger.records().values())
    package_run(work.run, config, records, GENERATE.fingerprint(config))
    coverage = coverage_so_far(work.run, config)
    if coverage is not None:
        publish_json(data_root(work.run, config) / "synthetic" / COVERAGE_FILE, coverage.to_json())


def check_generation(cfg: GenerateConfig) -> None:
    """Raise ConfigError unless images can be generated as configured, and prompts be read."""
    from sarhpc.generation.plan import check_config, read_prompts

    check_config(cfg)
    read_prompts(cfg)


def _check(config: RunConfig) -> None:
    check_generation(settings(config))
    check_table(config)


def shards_of(config: RunConfig, images: int) -> int:
    """Shards of so many images."""
    return math.ceil(images / settings(config).shard_samples)


def _shards(config: RunConfig) -> int | None:
    images = images_of(config)
    return None if images is None else shards_of(config, images)


def shard_bytes(config: RunConfig) -> float:
    """About how many bytes a shard of generated images has at most."""
    return sum(_image_bytes(config)) * settings(config).shard_samples


def _image_bytes(config: RunConfig) -> tuple[float, float]:
    """About how many bytes the 8-bit picture of an image has, and its 16-bit master."""
    cfg = settings(config)
    rows, columns = cfg.height_px, cfg.width_px
    pixels = rows * columns if rows and columns else config.tile.tile_px**2
    return PICTURE_BYTES_PER_PX * pixels, MASTER_BYTES_PER_PX * pixels


def dry_run_notes(config: RunConfig, plan: Plan | None) -> list[str]:
    """Bytes of an image, and models without a contract."""
    picture, master = _image_bytes(config)
    size = (
        f"an image: about {(picture + master) / 1e3:.1f} kB, {picture / 1e3:.1f} of them the 8-bit "
        f"picture and {master / 1e3:.1f} the 16-bit master, which needs a contract of the model"
    )
    return [size, *contract_notes(plan)]


GENERATE = StageSpec(
    name="generate",
    help="generate the synthetic corpus",
    branches=("generate",),
    needs_extra=lambda _: "generate",
    build=generate_stage,
    needs=("export",),
    enabled=lambda config: config.generate is not None,
    check=_check,
    sharded=True,
    shards=_shards,
    shard_bytes=shard_bytes,
    notes=lambda config, plan: [*table_lines(config), *dry_run_notes(config, plan)],
    request="array",
)
