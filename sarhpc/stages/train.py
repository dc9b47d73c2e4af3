"""Stage `train`: all ranks together, resumed from the newest whole checkpoint."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.errors import ConfigError, DataError
from hpc.job.pipeline import Stage, StageProgress, Work
from hpc.memory import gpu_memory_advised
from hpc.observe.state import last_row
from hpc.state_directory import state_directory
from hpc.store.plan import Plan, make_plan
from hpc.store.rundir import RunDir
from hpc.store.tree import digest_tree
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.azimuth import require_flippable, require_known_axis
from sarhpc.stages.inputs.model_layout import require_diffusers_model
from sarhpc.stages.inputs.paths import model_folder
from sarhpc.stages.inputs.prompts import TRAIN_SPLITS, sample_shards
from sarhpc.stages.inputs.sizes import check_sizes
from sarhpc.stages.judging import grid_judge, require_judges
from sarhpc.stages.prior import prior_digest, with_prior_shards
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.spec import Estimate, StageSpec, in_branch, pass_all
from sarhpc.stages.work import ranks
from sarhpc.stages.work.sharded import (
    ShardResult,
    manifest_sha,
    rejected_summary,
    sealed_records,
    single_shard,
)
from sarhpc.training.config import TrainConfig
from sarhpc.training.estimate.fit import Fit, is_deterministic
from sarhpc.training.judged import best_steps, chosen_checkpoint

if TYPE_CHECKING:
    from hpc.job.agreement import RankGroup

CHECKPOINT_FILES = 12
CHECKPOINT_FILES_PER_RANK = 4


def train_stage(config: RunConfig, upstream: Sequence[str]) -> Stage:
    """The stage that fine-tunes; collective, its progress is the newest checkpoint's step."""
    return Stage(
        name="train",
        needs=TRAIN.needs_in(upstream),
        plan=plan_training,
        work=train_ranks,
        collective=True,
        progress=lambda run: ranks.newest_step(run, "train"),
        live_progress=training_progress,
        progress_times=checkpointed_step_times,
    )


def plan_training(run: RunDir) -> Plan:
    """A single shard that names data, base model and sizes.

    Raises:
        DataError: there is no captioned sample to train on, with the reasons for which tiles were
            rejected; or too few to judge by, where a judge is configured.
    """
    config = load_run_config(run)
    records = [r for r in sealed_records(run, "caption") if r.detail["split"] in TRAIN_SPLITS]
    samples = sum(record.samples for record in records)
    if samples == 0:
        raise DataError(
            f"{run.root} has no sample to train on in split {', '.join(TRAIN_SPLITS)}; left out: "
            f"{rejected_summary(run, ['tile', 'caption']) or 'nothing'}; start a new run with "
            "other scenes, limits (tile.*) or split fractions (tile.split.fractions)"
        )
    inputs = {
        "data": manifest_sha(run, "caption"),
        "samples": samples,
        "base_model": model_folder(config.train.base_model),
    }
    require_judges(run, config.train)
    if _flips(config):
        require_flippable(run, "train.azimuth_flip")
    if config.encode is not None:
        inputs["latents"] = manifest_sha(run, "encode")
    if (prior := prior_digest(run, config)) is not None:
        inputs["prior"] = prior
    return make_plan("train", [inputs], fingerprint=TRAIN.fingerprint(config))


def training_progress(run: RunDir) -> StageProgress | None:
    """Steps done and their rate, from the newest row of metrics.jsonl."""
    path = run.stage("train") / "metrics.jsonl"
    row = last_row(path)
    if row is None:
        return None
    cfg = load_run_config(run).train
    # The row knows how many steps an epoch has; counting the samples again would take longer.
    goal = round(row["step"] / row["epoch"] * cfg.epochs) if row.get("epoch") else None
    goals = [steps for steps in (goal, cfg.max_steps) if steps is not None]
    note = f"{ranks.loss_note(row)}, {row['samples_per_s']:.3g} samples/s"
    return ranks.step_progress(run, "train", row, min(goals, default=None), note)


def checkpointed_step_times(run: RunDir) -> list[float]:
    """When each step that a checkpoint holds was taken, s since the epoch."""
    return ranks.checkpointed_step_times(run, "train")


def train_ranks(work: Work) -> None:
    """Train on this rank; rank 0 records the final checkpoint, or the best one if that is asked.

    Raises:
        StopRequestedError: someone asked to stop; all ranks saved the same step.
        GpuMemoryError: it does not fit on a GPU.
    """
    from hpc.cluster.keys import run_key
    from sarhpc.stages.training_cost import memory_advice
    from sarhpc.training.ranks import join, leave, on_gpu

    config = load_run_config(work.run)
    cfg = with_prior_shards(work.run, config)
    cfg = dataclasses.replace(cfg, base_model=model_folder(cfg.base_model))
    if cfg.compile:
        keep_compiled(os.environ)
    key = run_key(work.run.root)
    deterministic = is_deterministic(cfg, on_gpu=on_gpu())
    joined = join(cfg.threads, deterministic=deterministic, seed=cfg.seed, key=key)
    try:
        cfg = ranks.frozen_layout(work, joined, cfg, _layout_for(config, cfg, joined))
        with gpu_memory_advised(lambda: memory_advice(config, cfg, joined.world)):
            checkpoint = _train(work, cfg, joined)
    finally:
        leave()
    if joined.rank == 0:
        checkpoint = chosen_checkpoint(work.run.stage("train"), cfg.judge, checkpoint)
        digest = digest_tree(checkpoint)
        single_shard(work, lambda: ShardResult(checkpoint, 0, digest.bytes, digest.sha256))


def _layout_for(config: RunConfig, cfg: TrainConfig, joined: RankGroup) -> Callable[[], Fit]:
    """Chooses the layout of a first start on the memory that the ranks have. Collective."""
    from sarhpc.stages.training_fit import layout, rank_memory

    memory = 0.0 if cfg.fit is None else rank_memory(joined)
    used = dataclasses.replace(config, train=cfg)
    return lambda: layout(used, Path(cfg.base_model), joined.world, memory)


def keep_compiled(environment: MutableMapping[str, str]) -> None:
    """Let torch keep what it compiles where every node and later start of this user finds it.

    Not in the run, which may be a copy of another user's: what lies there is run.
    """
    folder = state_directory() / "compiled"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    environment.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def _training_shards(run: RunDir) -> dict[Path, str]:
    """Shards to train on, each with its SHA-256."""
    digests = {Path(record.path): record.sha256 for record in sealed_records(run, "caption")}
    return {path: digests[path] for path in sample_shards(run, TRAIN_SPLITS)}


def _train(work: Work, cfg: TrainConfig, joined: RankGroup) -> Path:
    from hpc.job.staging import node_local, staged
    from sarhpc.shards.samples import ShardedSamples
    from sarhpc.stages.encode import latent_shards
    from sarhpc.training.denoising.task import train

    run, config = work.run, load_run_config(work.run)
    with (
        ranks.train_context(
            work,
            joined,
            keep_last=cfg.keep_last,
            keep_every=cfg.keep_every_steps,
            also_keep=lambda: best_steps(run.stage("train"), cfg.judge),
        ) as ctx,
        staged(_training_shards(run), node_local(config.cluster.node_local)) as shards,
    ):
        result = train(
            cfg,
            Path(cfg.base_model),
            ShardedSamples(shards),
            joined,
            ctx,
            latents=latent_shards(run, config),
            judge=grid_judge(run, cfg),
        )
    return ranks.require_finished(run, result)


def _flips(config: RunConfig) -> bool:
    return config.train.azimuth_flip and config.train.image_member == "sar.png"


def check_settings(config: RunConfig) -> None:
    """Raise ConfigError unless the model can be trained as configured."""
    from sarhpc.training.config_checks import check, check_judge

    if _flips(config):
        require_known_axis(config, "train.azimuth_flip")
    with in_branch("train"):
        check(config.train)
        if config.train.judge is not None:
            check_judge(config.train, config.train.judge)
    requested = config.train.prior
    if requested is not None and requested.shards is None and config.prior is None:
        raise ConfigError(
            "train.prior: no regularisation images; name the folder of their shards "
            "(train.prior.shards), or let the base model make some (prior.images=1000)"
        )


def check_inputs(_: RunDir, config: RunConfig) -> None:
    """Raise ConfigError unless model, size of the tiles and regularisation images are of use."""
    base = config.train.base_model
    pass_all(
        lambda: require_diffusers_model("train.base_model", base, or_file=True),
        lambda: check_sizes(config),
        lambda: _require_prior_shards(config),
    )


def _require_prior_shards(config: RunConfig) -> None:
    prior = config.train.prior
    if prior is not None and prior.shards is not None and not Path(prior.shards).is_dir():
        raise ConfigError(
            f"train.prior.shards={prior.shards} is no folder; name that of the shards of "
            "regularisation images"
        )


def check_ranks(config: RunConfig, world: int) -> None:
    """Raise ConfigError unless the global batch divides among `world` ranks."""
    from sarhpc.training.schedule import fitting_micro_batch

    with in_branch("train"):
        fitting_micro_batch(config.train.micro_batch, config.train.global_batch, world)


def estimate(
    config: RunConfig, plan: Plan | None, world: int, memory: float | None = None
) -> Estimate:
    """Checkpoints kept and the one being written, after what the training will take."""
    from sarhpc.stages.training_cost import training_cost
    from sarhpc.training.estimate.footprint import checkpoint_bytes

    cost = training_cost(config, plan, world, memory)
    if cost.learned is None:
        return Estimate(1, None, None, cost.lines)
    cfg = config.train
    # The last step is among the newest anyway.
    kept = cfg.keep_last + 1 + (cfg.judge is not None)
    kept += max(cost.steps - 1, 0) // cfg.keep_every_steps if cfg.keep_every_steps else 0
    files = CHECKPOINT_FILES + CHECKPOINT_FILES_PER_RANK * world
    return Estimate(1, checkpoint_bytes(cfg, cost.learned) * kept, files * kept, cost.lines)


TRAIN: StageSpec = StageSpec(
    name="train",
    help="fine-tune the diffusion model with DeepSpeed ZeRO",
    branches=("train",),
    needs_extra=lambda _: "train",
    build=train_stage,
    needs=("caption", "encode", "prior"),
    check=check_settings,
    check_inputs=check_inputs,
    check_ranks=check_ranks,
    models=lambda config: [config.train.base_model],
    estimate=estimate,
    node_local=lambda config: config.cluster.node_local,
    request="ranks",
)
