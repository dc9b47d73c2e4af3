"""Shards of generated images, of every stage that makes some."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.cluster.allocation import current_allocation
from hpc.job.shard_progress import Devices, counted
from hpc.job.stop import stop_signalled
from hpc.store.plan import ShardTask
from hpc.store.rundir import RunDir, open_run
from sarhpc.generation.config import GenerateConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.prompts import held_out_splits, sample_shards
from sarhpc.stages.planned_corpus import requests_of
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.work.shard_gates import shard_gate
from sarhpc.stages.work.sharded import ShardResult

if TYPE_CHECKING:
    from sarhpc.generation.steering import SteeringLayers


def generated_shard(
    run: RunDir,
    task: ShardTask,
    model: Path,
    cfg: GenerateConfig,
    path: Path,
    fingerprint: str,
    image_member: str = "sar.png",
    stage: str = "generate",
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
        stage: whose shard it is.
    """
    from sarhpc.generation.adapters.chosen import require_planned
    from sarhpc.generation.image_shard import Provenance, generate_shard
    from sarhpc.generation.steering import with_layers
    from sarhpc.shards.writer_thread import write_shard_beside

    provenance = Provenance(task.inputs["model_sha"], fingerprint)
    require_planned(task.inputs, model, cfg)
    pipeline = loaded_pipeline(model, cfg)
    layers = None if cfg.steer is None else _indexed_layers(run.root)
    requests = requests_of(run, task.inputs)
    with shard_gate(run, task, cfg, path) as gate:
        generated = generate_shard(
            task.number,
            task.inputs,
            cfg,
            pipeline,
            provenance,
            stop=lambda: stop_signalled() or run.stop_file.exists(),
            layers=layers,
            image_member=image_member,
            requests=requests,
            **gate.hooks,
        )
        samples = generated.samples
        # A shard that was planned before layers were kept is made as its siblings were.
        if layers is not None and "layer_member" in task.inputs:
            member, first = task.inputs["layer_member"], task.inputs["first"]
            samples = with_layers(samples, layers, member, first)
        devices = _devices(pipeline.device.type, task.inputs["threads"])
        shown = counted(samples, run.stage(stage), task.id, len(requests), devices)
        made = write_shard_beside(path, shown)
    return ShardResult(path, made.samples, made.bytes, made.sha256, generated.rejected, gate.detail)


def _devices(kind: str, threads: int) -> Devices:
    """What this worker computes on: one GPU, or the cores that no other worker uses meanwhile."""
    if kind == "cuda":
        return Devices(gpus=1)
    here = current_allocation()
    if here.job_id is None or here.cpus is None:
        return Devices(cores=threads)
    # An array element has one worker a task, any other job one a core.
    return Devices(cores=here.cpus if here.array_id is not None else 1)


# A worker process keeps the pipeline it loaded last: one load per worker and model, not per shard.
_loaded: dict[tuple[str, str], Any] = {}


def loaded_pipeline(model: Path, cfg: GenerateConfig) -> Any:
    """The pipeline of `model`, loaded unless it is the one that this process loaded last."""
    from sarhpc.generation.model import load_pipeline

    adapters = f"{cfg.adapter} {cfg.adapter_weight} {cfg.adapters}"
    key = (str(model), f"{cfg.scheduler} {cfg.schedule} {cfg.dtype} {adapters}")
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = load_pipeline(model, cfg)
    return _loaded[key]


@functools.lru_cache(maxsize=1)
def _indexed_layers(root: Path) -> SteeringLayers | None:
    """What steers, indexed once a worker: the whole corpus is steered by the same shards."""
    run = open_run(root)
    return steering_layers(run, load_run_config(run))


def steering_layers(run: RunDir, config: RunConfig) -> SteeringLayers | None:
    """What steers the images of the corpus, if anything does.

    Raises:
        DataError: there are no tiles to steer by.
    """
    from sarhpc.generation.steering import SteeringLayers

    assert config.generate is not None
    steer = config.generate.steer
    if steer is None:
        return None
    if steer.shards is None:
        splits = held_out_splits(run, config.evaluate.real_splits)
        return SteeringLayers(sample_shards(run, splits), steer)
    return SteeringLayers(sorted(Path(steer.shards).rglob("*.tar")), steer)
