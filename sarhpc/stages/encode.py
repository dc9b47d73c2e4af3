"""Stage `encode`: the tiles to train on as latents, once for all epochs and restarts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpc.errors import ConfigError
from hpc.job.pipeline import Stage, Work
from hpc.job.shard_progress import counted
from hpc.store.plan import Plan, ShardTask, make_plan
from hpc.store.rundir import RunDir
from hpc.store.tree import digest_tree
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.paths import data_root, model_folder
from sarhpc.stages.inputs.prompts import TRAIN_SPLITS
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.spec import StageSpec
from sarhpc.stages.tile import most_tiles, shard_pixels
from sarhpc.stages.work.sharded import (
    ShardResult,
    make_missing_shards,
    remove_stale_files,
    sealed_records,
)

LATENT_BYTES_PER_PX = 0.5
"""Eight float32 numbers for each 8 x 8 px."""


def encode_stage(config: RunConfig, upstream: Sequence[str]) -> Stage:
    """The stage that encodes tiles."""
    return Stage(
        name="encode",
        needs=ENCODE.needs_in(upstream),
        plan=plan_encoding,
        work=lambda work: make_missing_shards(
            make_latent_shard, work, workers=config.cluster.workers
        ),
        finish=lambda work: finish_latents(work, config),
    )


def plan_encoding(run: RunDir) -> Plan:
    """A shard for each shard to train on, named by its digest and by that of the autoencoder.

    Raises:
        ConfigError: regularisation images are trained on too, and only tiles are encoded.
    """
    config = load_run_config(run)
    require_encodable(config)
    base = Path(model_folder(config.train.base_model))
    vae = base if base.is_file() else base / "vae"
    records = [r for r in sealed_records(run, "caption") if r.detail["split"] in TRAIN_SPLITS]
    shared = {
        "vae": str(vae),
        "vae_sha256": digest_tree(vae).sha256,
        "image_member": config.train.image_member,
        "flipped": config.train.azimuth_flip,
    }
    return make_plan(
        "encode",
        [
            {"samples": run.stored(record.path), "sha256": record.sha256, **shared}
            for record in records
            if record.samples
        ],
        fingerprint=ENCODE.fingerprint(config),
    )


def require_encodable(config: RunConfig) -> None:
    """Raise ConfigError if regularisation images are trained on too: only tiles are encoded."""
    if config.train.prior is not None:
        raise ConfigError("encode with train.prior: only tiles are encoded; leave one of them out")


def make_latent_shard(run: RunDir, task: ShardTask) -> ShardResult:
    """Encode and publish the latents of one shard of samples."""
    import torch

    from sarhpc.diffusion.bundle import load_autoencoder
    from sarhpc.shards.samples import ShardedSamples
    from sarhpc.shards.writer import write_shard
    from sarhpc.training.denoising.latents import encode_samples

    config = load_run_config(run)
    assert config.encode is not None
    torch.set_num_threads(config.encode.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    samples = ShardedSamples([run.located(task.inputs["samples"])])
    latents = encode_samples(
        samples,
        load_autoencoder(Path(task.inputs["vae"])),
        device,
        task.inputs["image_member"],
        flipped=task.inputs["flipped"],
    )
    path = data_root(run, config) / "latents" / f"{task.id}.tar"
    latents = counted(latents, run.stage("encode"), task.id, most_tiles(config))
    summary = write_shard(path, latents)
    return ShardResult(path, summary.samples, summary.bytes, summary.sha256)


def latent_shards(run: RunDir, config: RunConfig) -> tuple[Path, ...]:
    """Shards of latents to train on; none where training encodes the tiles itself."""
    if config.encode is None:
        return ()
    return tuple(Path(record.path) for record in sealed_records(run, "encode"))


def finish_latents(work: Work, config: RunConfig) -> None:
    """Remove temporary files of killed writers."""
    remove_stale_files(data_root(work.run, config) / "latents")


def _shard_bytes(config: RunConfig) -> float:
    copies = 2 if config.train.azimuth_flip else 1
    return LATENT_BYTES_PER_PX * copies * shard_pixels(config)


ENCODE: StageSpec = StageSpec(
    name="encode",
    help="precompute the latents of the training tiles",
    branches=("encode",),
    needs_extra=lambda _: "train",
    build=encode_stage,
    needs=("caption",),
    enabled=lambda config: config.encode is not None,
    check=require_encodable,
    sharded=True,
    shard_bytes=_shard_bytes,
    request="gpu_node",
)
