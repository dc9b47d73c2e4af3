"""Stage `train`: all ranks together, resumed from the newest whole checkpoint."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.errors import DataError, StopRequestedError
from hpc.run.pipeline import Course, Stage, Work
from hpc.run.plan import Plan, make_plan
from hpc.run.rundir import RunDir
from hpc.run.state import last_row, newest_checkpoint
from sarhpc.stages.config import RunConfig
from sarhpc.stages.frozen import load_run_config, stage_fingerprint
from sarhpc.stages.judging import best_steps, chosen_checkpoint, grid_judge, require_judges
from sarhpc.stages.places import model_folder
from sarhpc.stages.prompts import TRAIN_SPLITS, sample_shards
from sarhpc.stages.sharded import Made, left_out, manifest_sha, sealed_records, single_shard
from sarhpc.stages.tree import digest_tree
from sarhpc.training.config import TrainConfig

if TYPE_CHECKING:
    from sarhpc.training.ranks import Ranks

log = logging.getLogger(__name__)

PACE = "pace.json"
"""The pace of every rank, in the stage's directory."""


def train_stage(config: RunConfig) -> Stage:
    """The stage that fine-tunes; collective, its progress is the newest checkpoint's step."""
    return Stage(
        name="train",
        needs=("caption",) if config.encode is None else ("caption", "encode"),
        plan=plan_training,
        work=train_ranks,
        collective=True,
        progress=newest_step,
        course=training_course,
        reached=kept_steps,
    )


def plan_training(run: RunDir) -> Plan:
    """A single shard that names data, base model and sizes.

    Raises:
        DataError: no captioned sample is there to train on; says why tiles were left out. Or none
            to judge by, where that is asked.
    """
    config = load_run_config(run)
    records = [r for r in sealed_records(run, "caption") if r.detail["split"] in TRAIN_SPLITS]
    samples = sum(record.samples for record in records)
    if samples == 0:
        raise DataError(
            f"{run.root} has no sample to train on in split {', '.join(TRAIN_SPLITS)}; left out: "
            f"{left_out(run, ['tile', 'caption']) or 'nothing'}; start a new run with other "
            "scenes, limits (tile.*) or split fractions (tile.split.fractions)"
        )
    inputs = {
        "data": manifest_sha(run, "caption"),
        "samples": samples,
        "base_model": model_folder(config.train.base_model),
    }
    require_judges(run, config.train)
    if config.encode is not None:
        inputs["latents"] = manifest_sha(run, "encode")
    if config.train.prior is not None:
        inputs["prior"] = digest_tree(Path(config.train.prior.shards)).sha256
    return make_plan("train", [inputs], fingerprint=stage_fingerprint(config, "train"))


def newest_step(run: RunDir) -> int:
    """Step of the newest checkpoint directory, 0 without any."""
    path = newest_checkpoint(run.stage("train"))
    return int(path.name.removeprefix("step_")) if path else 0


def training_course(run: RunDir) -> Course | None:
    """Steps done as the newest row of metrics.jsonl tells, and the pace of that row."""
    path = run.stage("train") / "metrics.jsonl"
    row = last_row(path)
    if row is None:
        return None
    cfg = load_run_config(run).train
    # The row knows how many steps an epoch has; counting the samples again would take longer.
    goal = round(row["step"] / row["epoch"] * cfg.epochs) if row.get("epoch") else None
    goals = [steps for steps in (goal, cfg.max_steps) if steps is not None]
    return Course(
        done=row["step"],
        goal=min(goals, default=None),
        unit="steps",
        per_s=1.0 / row["step_s"] if row.get("step_s") else None,
        says=f"{_loss(row)}, {row['samples_per_s']:.3g} samples/s" + _stragglers(run),
        when=row["time"],
    )


def _loss(row: Mapping[str, Any]) -> str:
    """The loss a row tells, or why its step has none; how many steps were skipped, if any were."""
    skipped = f", skipped steps: {row['skipped']}" if row.get("skipped") else ""
    return (f"loss {row['loss']:.4g}" if "loss" in row else row["trouble"]) + skipped


def _stragglers(run: RunDir) -> str:
    """Ranks that keep the others waiting, for a line; empty while there are none."""
    path = run.stage("train") / PACE
    if not path.exists():
        return ""
    slow = [rank for rank in json.loads(path.read_text())["ranks"] if rank["straggles"]]
    told = [f"rank {rank['rank']} on {rank['host']} ({rank['ratio']} x)" for rank in slow[:3]]
    return f", slow: {', '.join(told)}" if told else ""


def kept_steps(run: RunDir) -> list[float]:
    """When each step that a checkpoint holds was taken, s since the epoch."""
    path, newest = run.stage("train") / "metrics.jsonl", newest_step(run)
    if not path.exists():
        return []
    rows = (json.loads(line) for line in path.read_text().splitlines() if line.endswith("}"))
    return [row["time"] for row in rows if row["step"] <= newest]


def train_ranks(work: Work) -> None:
    """Train on this rank; rank 0 records the final checkpoint, or the best one if that is asked.

    Raises:
        StopRequestedError: someone asked to stop; all ranks saved the same step.
    """
    from sarhpc.training.ranks import join, leave

    config = load_run_config(work.run)
    cfg = dataclasses.replace(config.train, base_model=model_folder(config.train.base_model))
    ranks = join(cfg.threads, deterministic=cfg.deterministic, seed=cfg.seed)
    try:
        checkpoint = _train(work, cfg, ranks)
    finally:
        leave()
    if ranks.rank == 0:
        checkpoint = chosen_checkpoint(work.run, cfg, checkpoint)
        digest = digest_tree(checkpoint)
        single_shard(work, lambda: Made(checkpoint, 0, digest.bytes, digest.sha256))


def _training_shards(run: RunDir) -> dict[Path, str]:
    """Shards to train on, each with its SHA-256."""
    digests = {Path(record.path): record.sha256 for record in sealed_records(run, "caption")}
    return {path: digests[path] for path in sample_shards(run, TRAIN_SPLITS)}


def _train(work: Work, cfg: TrainConfig, ranks: Ranks) -> Path:
    from hpc.resilience.agreement import TorchCommunicator
    from hpc.resilience.checkpoint import CheckpointStore
    from hpc.resilience.staging import node_local, staged
    from hpc.resilience.stop import StopRequest
    from hpc.resilience.stragglers import PaceTable
    from hpc.resilience.watchdog import Place, Watchdog, WatchedStop
    from sarhpc.shards.samples import ShardedSamples
    from sarhpc.stages.encode import latent_shards
    from sarhpc.training.loop import train
    from sarhpc.training.surroundings import Surroundings

    communicator = TorchCommunicator()
    run, folder = work.run, work.run.stage("train")
    # The staging directory carries the attempt, and only rank 0 knows which one this is.
    attempt = communicator.broadcast(work.attempt)
    store = CheckpointStore(
        folder / "checkpoints",
        communicator,
        attempt,
        cfg.keep_last,
        cfg.keep_every_steps,
        also_keep=lambda: best_steps(run, cfg),
    )
    place = Place(folder, communicator.rank, communicator.world, attempt)
    dog = Watchdog(place, lambda: newest_step(run))
    pace = PaceTable(communicator, folder / PACE)
    with (
        StopRequest(
            communicator, run.stop_file, run.save_file, deadline=work.stop.deadline
        ) as stop,
        dog.watching(),
        staged(
            _training_shards(run), node_local(load_run_config(run).cluster.node_local)
        ) as shards,
    ):
        samples = ShardedSamples(shards)
        around = Surroundings(
            folder,
            store,
            WatchedStop(stop, dog),
            communicator,
            pace,
            latent_shards(run, load_run_config(run)),
            grid_judge(run, cfg),
        )
        result = train(cfg, Path(cfg.base_model), samples, ranks, around)
    if not result.finished or result.checkpoint is None:
        reason = result.reason
        raise StopRequestedError(
            f"training saved step {result.step} and stopped "
            f"({reason.name if reason else 'no reason given'}); "
            f"go on with `sarhpc resume {run.root}`",
            requeue=reason is not None and reason.requeues,
            reason=reason.name if reason else None,
        )
    return result.checkpoint
