"""The trainer: resume, then validate, save, stop and step, all ranks together, whatever learns."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from hpc.errors import NumericalError
from hpc.job.agreement import RankGroup, report_lost_ranks
from hpc.publish import fault
from sarhpc.shards.loader import Cursor
from sarhpc.training.checkpoints import checkpointing
from sarhpc.training.checkpoints.partition import gather
from sarhpc.training.config import LoopConfig
from sarhpc.training.config_checks import check_engine
from sarhpc.training.context import Stop, TrainContext
from sarhpc.training.ema import Ema
from sarhpc.training.metrics.gradient_norms import require_gradients
from sarhpc.training.metrics.log import MetricsLog, pace_of
from sarhpc.training.nonfinite import (
    NonFiniteStep,
    Skipped,
    describe_nonfinite,
    skip_or_stop,
)
from sarhpc.training.schedule import ema_decay
from sarhpc.training.state import FitResult, TrainState, require_same_facts
from sarhpc.training.stepper import Stepper, reduce_losses
from sarhpc.training.task import B, RankBatch, TrainTask

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class _Run(TrainState):
    """A training under way."""

    cfg: LoopConfig
    task: TrainTask[Any]
    ranks: RankGroup
    ctx: TrainContext
    stepper: Stepper
    ema: Ema | None
    skipped: Skipped = field(default_factory=Skipped)
    log: MetricsLog | None = None
    """Of rank 0."""
    urgency: int | None = None
    """Largest urgency to stop of all ranks, where the last step exchanged it."""

    @property
    def updates(self) -> int:
        """Updates done in all attempts: the place in the schedules of rate and average."""
        return self.step - self.skipped.steps

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.cfg.steps

    @property
    def epochs(self) -> int:
        """Epochs completed."""
        return self.step * self.cfg.global_batch // self.task.samples


def fit(cfg: LoopConfig, task: TrainTask[B], ranks: RankGroup, ctx: TrainContext) -> FitResult:
    """How the training of `task` ended; it goes on from its newest checkpoint if there is one.

    Collective: every rank calls it after `ranks.join`. At a step boundary all ranks agree whether
    to stop; they then save the same step and return together.

    Raises:
        ConfigError: the configuration makes no sense, or the checkpoint was taken under another.
        DataError: a sample cannot be used.
        NumericalError: the loss or the gradient is not finite and such a step is not skipped, or a
            group gets no gradient. A report with the keys of the batch is in the folder; the last
            checkpoint is intact.
        TransientError: a checkpoint could not be written, or another rank is gone.
    """
    check_engine(cfg)
    with report_lost_ranks(ranks):
        return _fit(cfg, task, ranks, ctx)


def _fit(cfg: LoopConfig, task: TrainTask[B], ranks: RankGroup, ctx: TrainContext) -> FitResult:
    run = _begin(cfg, task, ranks, ctx)
    batches = None
    try:
        _resume(run)
        _open_log(run)
        batches = task.feed(run.cursor, run.step)
        reason = _run_loop(run, batches)
        if run.finished:
            task.finish(lambda: _weights(run))
    finally:
        if batches is not None:
            batches.close()
        if run.log is not None:
            run.log.close()
        run.stepper.engine.destroy()
    return FitResult(run.step, run.epochs, run.finished, reason, run.loss, run.checkpoint)


def _begin(cfg: LoopConfig, task: TrainTask[B], ranks: RankGroup, ctx: TrainContext) -> _Run:
    stepper = Stepper(cfg, task, ranks)
    task.started(ranks.rank)
    ema = Ema(stepper.partition) if cfg.ema_decay else None
    return _Run(cfg=cfg, task=task, ranks=ranks, ctx=ctx, stepper=stepper, ema=ema)


def _run_loop(run: _Run, batches: Iterator[tuple[Cursor, RankBatch]]) -> Stop | None:
    """Why the training ended before its last step; None if it did not. It is saved either way."""
    while True:
        # First, as a validation may take minutes.
        run.commit(run.ctx.store, 0)
        reason = _validate_if_due(run) or _agree(run)
        if run.finished or reason or _is_checkpoint_due(run):
            _save(run)
        if run.finished or (reason and reason.stops):
            run.commit(run.ctx.store)
            return None if run.finished else reason
        try:
            _take_step(run, batches)
        except NumericalError:
            # All ranks agree on numbers, so all of them are here.
            run.commit(run.ctx.store)
            raise


def _agree(run: _Run) -> Stop | None:
    """The reason to interrupt the work now, the same on every rank."""
    urgency, run.urgency = run.urgency, None
    return run.ctx.stop.agree() if urgency is None else run.ctx.stop.agreed(urgency)


# Checkpoints


def _facts(run: _Run) -> dict[str, Any]:
    """What must be the same when a checkpoint is resumed."""
    cfg = run.cfg
    return {
        "samples": run.task.samples,
        "global_batch": cfg.global_batch,
        "seed": cfg.seed,
        "zero_stage": cfg.zero_stage,
        "precision": cfg.precision,
        **run.task.facts(),
    }


def _resume(run: _Run) -> None:
    def read(directory: Path, state: Mapping[str, Any]) -> None:
        """Restore the checkpoint in `directory`."""
        require_same_facts(directory, state["facts"], _facts(run))
        world = int(state["world_size"])
        stepper = run.stepper
        stepper.partition = checkpointing.load(directory, stepper.engine, run.ema, world)
        if run.ema is not None:
            run.ema.partition = stepper.partition
        run.restore(directory, state)
        run.skipped = Skipped(**state.get("skipped", {}))
        run.task.restore(state)

    how = "starts" if run.ctx.store.load(read) is None else "resumes"
    _log.info("training %s step=%d of=%d", how, run.step, run.cfg.steps)


def _is_checkpoint_due(run: _Run) -> bool:
    every = run.cfg.checkpoint_every_steps
    regular = every is not None and run.step > 0 and run.step % every == 0
    return run.due or regular or run.task.needs_checkpoint(run.step)


def _save(run: _Run) -> None:
    def write(directory: Path) -> list[Path]:
        return checkpointing.save(directory, run.stepper.engine, run.stepper.partition, run.ema)

    skipped = {"skipped": asdict(run.skipped)} if run.skipped.steps else {}
    run.save(run.ctx.store, write, {"facts": _facts(run), **run.task.state(), **skipped})


# Steps


def _take_step(run: _Run, batches: Iterator[tuple[Cursor, RankBatch]]) -> None:
    cfg, stepper, clock = run.cfg, run.stepper, run.stepper.clock
    clock.reset()
    is_last = cfg.log_last_step and run.step + 1 == cfg.steps
    clock.exact = (run.step + 1) % cfg.log_every_steps == 0 or is_last
    with clock.part("data"):
        after, batch = next(batches)
    rates = stepper.set_rates(run.task.rate_scale(run.updates))
    own = stepper.forward_backward(run.task, batch)
    late = time.monotonic() - run.saved_at >= cfg.checkpoint_every_s
    # A GPU would be waited for by a collective of its own; a request comes a step later so.
    carries = run.ranks.device.type == "cuda"
    urgency = run.ctx.stop.urgency() if carries else 0
    reduced = reduce_losses(own, late, run.ranks, urgency)
    gradient, norms = stepper.update(by_group=clock.exact or run.updates == 0)
    losses, run.due, asked = reduced.read()
    run.urgency = asked if carries else None
    what = describe_nonfinite(sum(losses.values()), gradient)
    row: dict[str, Any] = {"trouble": what}
    if what is None:
        row = {**losses, "grad_norm": gradient, **_named("grad_norm", norms)}
        row |= _update_average(run, losses["loss"], norms)
    else:
        rates, loss = {}, float(sum(own.values()))
        found = NonFiniteStep(what, run.step + 1, run.epochs, batch, loss, run.safe_step)
        run.skipped = skip_or_stop(cfg, found, run.skipped, run.ranks, run.ctx.folder, run.task)
    run.step, run.cursor = run.step + 1, after
    if run.ctx.pace is not None and clock.exact:
        run.ctx.pace.note(run.step, clock.own)
    if run.log is not None and (clock.exact or what is not None):
        _report(run, run.log, row, batch, rates)
    fault("training.after_step")


def _update_average(run: _Run, loss: float, norms: dict[str, float]) -> dict[str, float]:
    """Let the average follow an update; its decay, for the row of the step."""
    if run.updates == 0:
        require_gradients(norms)
    decay = ema_decay(run.cfg, run.updates)
    if run.ema is not None:
        run.ema.update(decay)
    run.loss, run.skipped = loss, run.skipped.with_update()
    return {} if run.cfg.ema_decay is None else {"ema_decay": decay}


# Metrics


def _named(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in values.items()}


def _open_log(run: _Run) -> None:
    if run.ranks.rank > 0:
        return
    path, fresh = run.ctx.folder / "metrics.jsonl", run.saved is None
    kept = -1 if fresh else run.step
    run.log = MetricsLog(path, kept, tensorboard=run.cfg.tensorboard, wandb=run.cfg.wandb)
    for row in run.task.opening_rows() if fresh else ():
        run.log.write({"step": 0, **row, "time": time.time()})


def _report(
    run: _Run,
    log: MetricsLog,
    values: Mapping[str, Any],
    batch: RankBatch,
    rates: Mapping[str, float],
) -> None:
    clock, batch_size = run.stepper.clock, run.cfg.global_batch
    seconds = clock.total
    row = {
        "step": run.step,
        "epoch": run.step * batch_size / run.task.samples,
        **values,
        **run.task.metrics(run.step, batch, rates, seconds),
        **({"skipped": run.skipped.steps} if run.skipped.steps else {}),
        **run.checkpoint_row(),
        **pace_of(clock, seconds, batch_size, run.ranks.device),
    }
    log.write(row)
    log.log_progress(row, run.cfg.steps)


# Validation


def _validate_if_due(run: _Run) -> Stop | None:
    """Validate if that is due; the reason to stop if one came up meanwhile."""
    if not run.task.is_validation_due(run.step):
        return None
    with checkpointing.preserved_random_state():
        for row in run.task.validate(run.step, lambda: _weights(run)):
            if row is None:
                reason = run.ctx.stop.agree()
                if reason and reason.stops:
                    return reason
                run.due = run.due or reason is not None
            elif run.log is not None:
                run.log.write({"step": run.step, **row, "time": time.time()})
    return None


def _weights(run: _Run) -> dict[str, Tensor]:
    """Full fp32 weights by name, on every rank: averaged if an average is kept, else raw."""
    partition, module = run.stepper.partition, run.stepper.engine.module
    tensors = run.ema.tensors if run.ema is not None else partition.tensors
    names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    return gather(partition, tensors, names)
