"""Stage `prior`: images of what the base model knows, made by itself, for prior preservation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hpc.job.pipeline import Stage
from hpc.store.plan import Plan, ShardTask, make_plan
from hpc.store.rundir import RunDir
from sarhpc.generation.config import PriorImagesConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.generate import generated_shard
from sarhpc.stages.paths import data_root, model_folder
from sarhpc.stages.run_config import load_run_config, stage_fingerprint
from sarhpc.stages.sharded import Made, manifest_sha, sweep, work_through
from sarhpc.stages.tree import digest_tree
from sarhpc.training.config import TrainConfig


def prior_stage(config: RunConfig) -> Stage:
    """The stage in which the base model makes regularisation images."""
    return Stage(
        name="prior",
        # Nothing of it is read, but images nobody trains on are GPU-hours lost.
        needs=("caption",),
        plan=plan_prior,
        work=lambda work: work_through(make_prior_shard, work, workers=config.cluster.workers),
        finish=lambda work: sweep(prior_root(work.run, config)),
    )


def prior_root(run: RunDir, config: RunConfig) -> Path:
    """Folder of the shards that the base model makes."""
    return data_root(run, config) / "prior"


def plan_prior(run: RunDir) -> Plan:
    """Shards of (prompt, seed); names the base model by its digest."""
    from sarhpc.generation.plan import plan_generation

    config = load_run_config(run)
    folder = model_folder(config.train.base_model)
    model = {"model": folder, "model_sha": digest_tree(Path(folder)).sha256}
    shards = [{**shard, **model} for shard in plan_generation(settings(config))]
    return make_plan("prior", shards, fingerprint=stage_fingerprint(config, "prior"))


def settings(config: RunConfig) -> PriorImagesConfig:
    """How the images are made: unless told otherwise, as large as the tiles beside them."""
    assert config.prior is not None
    side = config.tile.tile_px
    return dataclasses.replace(
        config.prior,
        height_px=config.prior.height_px or side,
        width_px=config.prior.width_px or side,
    )


def make_prior_shard(run: RunDir, task: ShardTask) -> Made:
    """Generate and publish one shard, in colour: `optic.png`."""
    config = load_run_config(run)
    path = prior_root(run, config) / f"{task.id}.tar"
    return generated_shard(run, task, settings(config), path, "prior", "optic.png")


def with_prior_shards(run: RunDir, config: RunConfig) -> TrainConfig:
    """The training of a run, told where its regularisation images lie if the run made them."""
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
