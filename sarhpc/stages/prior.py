"""Stage `prior`: regularisation images made by the base model, for prior preservation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from hpc.errors import ConfigError
from hpc.job.pipeline import Stage
from hpc.store.plan import Plan, ShardTask, make_plan
from hpc.store.rundir import RunDir
from hpc.store.tree import digest_tree
from sarhpc.generation.config import PriorImagesConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.generate import check_generation
from sarhpc.stages.inputs.paths import data_root, expanded, model_folder
from sarhpc.stages.inputs.sampling import require_sampled
from sarhpc.stages.inputs.sizes import assumed_side
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.spec import StageSpec
from sarhpc.stages.work.image_shards import generated_shard
from sarhpc.stages.work.sharded import (
    ShardResult,
    make_missing_shards,
    manifest_sha,
    remove_stale_files,
)
from sarhpc.training.config import TrainConfig

IMAGE_BYTES_PER_PX = 1.8


def prior_stage(config: RunConfig, upstream: Sequence[str]) -> Stage:
    """The stage in which the base model makes regularisation images."""
    return Stage(
        name="prior",
        needs=PRIOR.needs_in(upstream),
        plan=plan_prior,
        work=lambda work: make_missing_shards(
            make_prior_shard, work, workers=config.cluster.workers
        ),
        finish=lambda work: remove_stale_files(prior_root(work.run, config)),
    )


def prior_root(run: RunDir, config: RunConfig) -> Path:
    """Folder of the shards that the base model makes."""
    return data_root(run, config) / "prior"


def plan_prior(run: RunDir) -> Plan:
    """Shards of (prompt, seed); names the base model by its digest."""
    from sarhpc.generation.plan import plan_generation

    config = load_run_config(run)
    folder = model_folder(config.train.base_model)
    require_sampled(Path(folder), settings(config))
    model = {"model": folder, "model_sha": digest_tree(Path(folder)).sha256}
    shards = [{**shard, **model} for shard in plan_generation(settings(config))]
    return make_plan("prior", shards, fingerprint=PRIOR.fingerprint(config))


def settings(config: RunConfig) -> PriorImagesConfig:
    """How the images are made: unless configured, as large as the tiles."""
    assert config.prior is not None
    # Imported images of unknown size take that of the tiles, as nothing else is known.
    side = assumed_side(config)
    return dataclasses.replace(
        config.prior,
        height_px=config.prior.height_px or side,
        width_px=config.prior.width_px or side,
    )


def make_prior_shard(run: RunDir, task: ShardTask) -> ShardResult:
    """Generate and publish one shard, in colour: `optic.png`."""
    config = load_run_config(run)
    path = prior_root(run, config) / f"{task.id}.tar"
    model, fingerprint = Path(task.inputs["model"]), PRIOR.fingerprint(config)
    return generated_shard(
        run, task, model, settings(config), path, fingerprint, "optic.png", stage="prior"
    )


def with_prior_shards(run: RunDir, config: RunConfig) -> TrainConfig:
    """The training of a run, with the folder of its regularisation images if the run made them."""
    cfg = config.train
    if config.prior is None or cfg.prior is None:
        return cfg
    prior = dataclasses.replace(cfg.prior, shards=str(prior_root(run, config)))
    return dataclasses.replace(cfg, prior=prior)


def prior_digest(run: RunDir, config: RunConfig) -> str | None:
    """Digest of the regularisation images that are trained on; None without any."""
    if config.train.prior is None:
        return None
    if config.prior is not None:
        return manifest_sha(run, "prior")
    return digest_tree(Path(str(config.train.prior.shards))).sha256


def check_settings(config: RunConfig) -> None:
    """Raise ConfigError unless the base model can make the images, and training takes them."""
    requested = config.train.prior
    if requested is None or requested.shards is not None:
        raise ConfigError(
            "prior: these images are for a training with train.prior={} and without "
            "train.prior.shards; set it so, or leave prior out"
        )
    if Path(expanded(config.train.base_model)).is_file():
        raise ConfigError(
            f"prior: {config.train.base_model} is one file, and images are generated from a "
            "diffusers folder; give that, or make the images elsewhere (train.prior.shards)"
        )
    assert config.prior is not None
    if config.prior.table is not None:
        raise ConfigError("prior.table: these images have one prompt; leave the table out")
    if config.prior.gate is not None:
        raise ConfigError(
            "prior.gate: these images show no radar, and no limits apply to them; leave it out"
        )
    for name in ("adapter", "adapters", "steer", "image_to_image"):
        if getattr(config.prior, name):
            raise ConfigError(
                f"prior.{name}: these images are made by the unmodified base model; leave it out"
            )
    check_generation(settings(config))


def _shards(config: RunConfig) -> int | None:
    cfg = settings(config)
    return None if cfg.images is None else math.ceil(cfg.images / cfg.shard_samples)


PRIOR: StageSpec = StageSpec(
    name="prior",
    help="generate regularisation images with the base model",
    branches=("prior",),
    needs_extra=lambda _: "train",
    build=prior_stage,
    # Nothing of it is read, but without samples to train on the images would be wasted.
    needs=("caption",),
    enabled=lambda config: config.prior is not None,
    check=check_settings,
    sharded=True,
    shards=_shards,
    shard_bytes=lambda config: (
        IMAGE_BYTES_PER_PX * assumed_side(config) ** 2 * settings(config).shard_samples
    ),
    request="gpu",
)
