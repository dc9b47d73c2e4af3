"""What the ranks of a collective stage work with, and how they end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.documents import json_rows, read_json
from hpc.errors import HpcError, StopRequestedError
from hpc.job.agreement import on_rank_0
from hpc.job.pipeline import StageProgress, Work
from hpc.observe.state import newest_checkpoint
from hpc.publish import publish_json
from hpc.store.rundir import RunDir

if TYPE_CHECKING:
    from hpc.job.agreement import RankGroup
    from sarhpc.training.config import TrainConfig
    from sarhpc.training.context import TrainContext
    from sarhpc.training.estimate.fit import Fit
    from sarhpc.training.state import FitResult

_log = logging.getLogger(__name__)

PACE = "pace.json"
"""The pace of every rank, in the stage's directory."""
MICRO_BATCH = "micro_batch.json"
"""The micro-batch that the first start of a training chose, likewise."""


def newest_step(run: RunDir, stage: str) -> int:
    """Step of the newest checkpoint directory of a stage, 0 without any."""
    path = newest_checkpoint(run.stage(stage))
    return int(path.name.removeprefix("step_")) if path else 0


def memory_advice(section: str, micro_batch: int) -> str:
    """What to lower where a training of this section does not fit on its GPU."""
    return (
        f"start a new run with {section}.micro_batch below {micro_batch} (or of 1, precision=bf16 "
        "and zero_stage=2), or on GPUs with more memory"
    )


def stragglers(run: RunDir, stage: str) -> str:
    """Ranks that keep the others waiting, for a line; empty while there are none."""
    path = run.stage(stage) / PACE
    if not path.exists():
        return ""
    try:
        slow = [rank for rank in read_json(path)["ranks"] if rank["straggles"]]
        named = [f"rank {rank['rank']} on {rank['host']} ({rank['ratio']} x)" for rank in slow[:3]]
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # damaged: the next pace replaces it
    return f", slow: {', '.join(named)}" if named else ""


def step_progress(
    run: RunDir, stage: str, row: Mapping[str, Any], goal: int | None, note: str
) -> StageProgress:
    """Steps done, their rate and `note`, from a row of metrics.jsonl."""
    return StageProgress(
        done=row["step"],
        goal=goal,
        unit="steps",
        per_s=1.0 / row["step_s"] if row.get("step_s") else None,
        note=note + stragglers(run, stage),
        updated=row["time"],
    )


def loss_note(row: Mapping[str, Any]) -> str:
    """The loss of a row, or why its step has none; the number of skipped steps, if any."""
    skipped = f", skipped steps: {row['skipped']}" if row.get("skipped") else ""
    return (f"loss {row['loss']:.4g}" if "loss" in row else row["trouble"]) + skipped


def checkpointed_step_times(run: RunDir, stage: str) -> list[float]:
    """When each step that a checkpoint holds was taken, s since the epoch."""
    path, newest = run.stage(stage) / "metrics.jsonl", newest_step(run, stage)
    if not path.exists():
        return []
    timed = (row for row in json_rows(path) if isinstance(row.get("time"), int | float))
    return [
        row["time"] for row in timed if isinstance(row.get("step"), int) and row["step"] <= newest
    ]


def frozen_micro_batch(
    work: Work,
    ranks: RankGroup,
    most: int,
    global_batch: int,
    name: str,
    beside: Mapping[str, Any] | None = None,
) -> int:
    """The micro-batch, chosen at the first start of a training and kept after it. Collective.

    Only ranks among which the kept one does not divide make it smaller, while there are so many.

    Args:
        work: of this rank.
        ranks: that this process joined.
        most: samples that a forward pass of one rank may take.
        global_batch: samples of a step over all ranks.
        name: what a message calls the global batch.
        beside: what else is kept with it.

    Raises:
        ConfigError: the global batch does not divide among the ranks.
    """
    from sarhpc.training.schedule import fitting_micro_batch

    path = work.run.stage(work.plan.stage) / MICRO_BATCH
    is_first = ranks.rank == 0 and not path.exists()
    if ranks.rank == 0 and not is_first:
        most = int(read_json(path)["micro_batch"])
    chosen = fitting_micro_batch(ranks.broadcast(most), global_batch, ranks.world, name)
    if is_first:
        publish_json(path, {"micro_batch": chosen, "ranks": ranks.world, **(beside or {})})
    return chosen


def frozen_layout(
    work: Work, ranks: RankGroup, cfg: TrainConfig, layout: Callable[[], Fit]
) -> TrainConfig:
    """`cfg` with micro-batch, checkpointing and ZeRO stage as they stand since the first start.

    Collective. Without `train.fit` only the micro-batch is frozen.

    Args:
        work: of this rank.
        ranks: that this process joined.
        cfg: the training.
        layout: chooses the layout, on rank 0 of the first start.

    Raises:
        ConfigError: the global batch does not divide among the ranks, or nothing fits.
    """
    beside = None
    if cfg.fit is not None:
        kept = on_rank_0(ranks, lambda: _kept_layout(work, layout))
        if kept.failure is not None:
            raise (kept.kind or HpcError)(kept.failure)
        assert kept.value is not None
        beside = {name: kept.value[name] for name in ("zero_stage", "gradient_checkpointing")}
        cfg = replace(cfg, **kept.value)
    micro = frozen_micro_batch(
        work, ranks, cfg.micro_batch, cfg.global_batch, "train.global_batch", beside
    )
    return replace(cfg, micro_batch=micro)


def _kept_layout(work: Work, layout: Callable[[], Fit]) -> dict[str, Any]:
    """The layout of the first start, which is now where no file has it."""
    path = work.run.stage(work.plan.stage) / MICRO_BATCH
    if path.exists():
        names = ("micro_batch", "zero_stage", "gradient_checkpointing")
        found = read_json(path)
        return {name: found[name] for name in names}
    fit = layout()
    _log.info("fit %s needs_gib=%.1f", fit, fit.needed / 2**30)
    chosen = asdict(fit)
    del chosen["needed"]
    return chosen


@contextmanager
def train_context(
    work: Work,
    ranks: RankGroup,
    *,
    keep_last: int,
    keep_every: int | None = None,
    also_keep: Callable[[], Collection[int]] = tuple,
) -> Iterator[TrainContext]:
    """Store, stop request and pace of the ranks, under a watchdog. Collective.

    Args:
        work: of this rank.
        ranks: that this process joined.
        keep_last: newest checkpoints kept.
        keep_every: checkpoints kept at multiples of this many steps.
        also_keep: returns further steps whose checkpoints are kept.
    """
    from hpc.job.checkpoint import CheckpointStore
    from hpc.job.signatures import RunSignature
    from hpc.job.stop import StopRequest
    from hpc.job.stragglers import PaceTable
    from hpc.job.watchdog import Watchdog, WatchedProcess, WatchedStop
    from sarhpc.training.context import TrainContext

    run, name = work.run, work.plan.stage
    folder = run.stage(name)
    # The staging directory carries the attempt, and only rank 0 knows which one this is.
    attempt = ranks.broadcast(work.attempt)
    store = CheckpointStore(
        folder / "checkpoints",
        ranks,
        attempt,
        keep_last,
        keep_every,
        also_keep=also_keep,
        guard=None if work.lease is None else work.lease.require_held,
        signature=RunSignature(run.root),
    )
    place = WatchedProcess(folder, ranks.rank, ranks.world, attempt, lease=work.lease)
    dog = Watchdog(place, lambda: newest_step(run, name))
    pace = PaceTable(ranks, folder / PACE)
    with (
        StopRequest(ranks, run.stop_file, run.save_file, deadline=work.stop.deadline) as stop,
        dog.watching(),
    ):
        yield TrainContext(folder, store, WatchedStop(stop, dog), pace)


def require_finished(run: RunDir, result: FitResult) -> Path:
    """The last checkpoint of a training that reached its last step.

    Raises:
        StopRequestedError: it did not; all ranks saved the same step.
    """
    if result.finished and result.checkpoint is not None:
        return result.checkpoint
    reason = result.reason
    raise StopRequestedError(
        f"training saved step {result.step} and stopped "
        f"({reason.name if reason else 'no reason given'}); "
        f"continue with `sarhpc resume {run.quoted}`",
        requeue=reason is not None and reason.requeues,
        reason=reason.name if reason else None,
    )
