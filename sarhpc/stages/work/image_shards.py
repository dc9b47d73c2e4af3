"""Shards of generated images, of every stage that makes some."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.cluster.allocation import current_allocation
from hpc.job.shard_progress import Devices, counted
from hpc.job.stop import stop_signalled
from hpc.store.plan import ShardTask
from hpc.store.rundir import RunDir, open_run
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.sources.config import ImageToImageConfig
from sarhpc.stages.inputs.controls import require_planned_controls, steering_layers
from sarhpc.stages.inputs.image_size import image_size
from sarhpc.stages.inputs.source_images import SOURCES_SHA, source_images
from sarhpc.stages.planned_corpus import requests_of
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.work.shard_gates import shard_gate
from sarhpc.stages.work.sharded import ShardResult

if TYPE_CHECKING:
    from sarhpc.generation.sources.source_images import SourceImages
    from sarhpc.generation.steering import LayerSource


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
    from sarhpc.generation.sweeps.settings import images_per_layout
    from sarhpc.shards.writer_thread import write_shard_beside

    provenance = Provenance(task.inputs["model_sha"], fingerprint)
    require_planned(task.inputs, model, cfg)
    pipeline = loaded_pipeline(model, cfg)
    layers = _layers(run, cfg, task.inputs, model)
    requests, each = requests_of(run, task.inputs), images_per_layout(cfg)
    sources = None
    if cfg.image_to_image is not None:
        sources = planned_sources(run, cfg.image_to_image, task.inputs, len(requests))
    with shard_gate(run, task, cfg, path) as gate:
        generated = generate_shard(
            task.number,
            task.inputs,
            cfg,
            pipeline,
            provenance,
            stop=lambda: stop_signalled() or run.stop_file.exists(),
            layers=layers,
            sources=sources,
            image_member=image_member,
            requests=requests,
            **gate.hooks,
        )
        samples = generated.samples
        # A shard that was planned before layers were kept is made as its siblings were.
        if layers is not None and "layer_member" in task.inputs:
            names = [task.inputs["layer_member"], *task.inputs.get("further_members", [])]
            samples = with_layers(samples, layers, task.inputs["first"], names, each)
        devices = _devices(pipeline.device.type, task.inputs["threads"])
        shown = counted(samples, run.stage(stage), task.id, len(requests) * each, devices)
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

    steer = cfg.steer
    controls = [] if steer is None else [steer.model, *(each.model for each in steer.further)]
    kind = "from noise" if cfg.image_to_image is None else "from images"
    adapters = f"{cfg.adapter} {cfg.adapter_weight} {cfg.adapters}"
    sampler = f"{cfg.scheduler} {cfg.schedule} {cfg.dtype}"
    key = (str(model), f"{sampler} {adapters} {controls} {kind}")
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = load_pipeline(model, cfg)
    return _loaded[key]


@functools.lru_cache(maxsize=1)
def _indexed_layers(root: Path, planned: str, size: tuple[int, int] | None) -> LayerSource | None:
    """What steers, indexed once a worker: the whole corpus is steered by the same layers."""
    run = open_run(root)
    config = load_run_config(run)
    assert config.generate is not None
    require_planned_controls(config.generate, json.loads(planned))
    return steering_layers(run, config, config.generate, size)


def planned_sources(
    run: RunDir, cfg: ImageToImageConfig, inputs: Mapping[str, Any], count: int
) -> SourceImages:
    """The images that the `count` images of a planned shard begin with, as they were planned.

    Raises:
        VerificationError: one has changed since.
    """
    contract = inputs.get("contract")
    known = None if contract is None else json.dumps(contract)
    found = _indexed_sources(run.root, cfg.images, known)
    found.require_planned(inputs["first"], count, inputs[SOURCES_SHA])
    return found


@functools.lru_cache(maxsize=1)
def _indexed_sources(root: Path, images: str | None, contract: str | None) -> SourceImages:
    """What the images of a run begin with, indexed once a worker."""
    from sarhpc.shards.contract import PixelContract

    run = open_run(root)
    known = None if contract is None else PixelContract.from_json(json.loads(contract))
    return source_images(run, load_run_config(run), ImageToImageConfig(images), known)


def _layers(
    run: RunDir, cfg: GenerateConfig, inputs: Mapping[str, Any], model: Path
) -> LayerSource | None:
    if cfg.steer is None:
        return None
    planned = {name: inputs[name] for name in _PLANNED if name in inputs}
    return _indexed_layers(run.root, json.dumps(planned), image_size(cfg, model))


_PLANNED = ("layers_sha", "further_layers_sha", "control_sha")
