"""The trainer: resume, then validate, save, stop and step, all ranks together, whatever learns."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from hpc.job.agreement import RankGroup
from hpc.publish import fault
from sarhpc.shards.loader import Cursor
from sarhpc.training.checkpoints import checkpointing
from sarhpc.training.checkpoints.partition import Partition, gather
from sarhpc.training.config import LoopConfig
from sarhpc.training.context import Stop, TrainContext
from sarhpc.training.ema import Ema
from sarhpc.training.engine import put_on_engine, weights_that_learn
from sarhpc.training.metrics.gradient_norms import GroupNorms, require_gradients
from sarhpc.training.metrics.log import MetricsLog, StepClock, pace_of
from sarhpc.training.nonfinite import (
    NonFiniteStep,
    Skipped,
    describe_nonfinite,
    poison_if_nonfinite,
    skip_or_stop,
)
from sarhpc.training.ranks import in_touch
from sarhpc.training.schedule import accumulation, check_engine, ema_decay
from sarhpc.training.state import FitResult, StepHooks, TrainState, require_same_facts, run_loop
from sarhpc.training.task import B, RankBatch, TrainTask

_log = logging.getLogger(__name__)

Losses = dict[str, float]
"""Mean losses over all ranks by name, the one called `loss` first."""


@dataclass(kw_only=True)
class _Run(TrainState):
    """A training under way."""

    cfg: LoopConfig
    task: TrainTask[Any]
    ranks: RankGroup
    ctx: TrainContext
    engine: Any
    partition: Partition
    groups: Sequence[Mapping[str, Any]]
    """Options of each group of the optimiser, as the task gave them."""
    norms: GroupNorms
    ema: Ema | None
    clock: StepClock
    passes: int
    """Forward passes per rank and step."""
    skipped: Skipped = field(default_factory=Skipped)
    log: MetricsLog | None = None
    """Of rank 0."""

    @property
    def updates(self) -> int:
        """Updates done in all attempts: the place in the schedules of rate and average."""
        return self.step - self.skipped.steps

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
    with in_touch(ranks):
        return _fit(cfg, task, ranks, ctx)


def _fit(cfg: LoopConfig, task: TrainTask[B], ranks: RankGroup, ctx: TrainContext) -> FitResult:
    run = _begin(cfg, task, ranks, ctx)
    batches = None
    try:
        _resume(run)
        _open_log(run)
        batches = task.feed(run.cursor, run.step)
        finished, reason = run_loop(run, cfg.steps, ctx.stop, _hooks(run, batches))
        if finished:
            task.finish(lambda: _weights(run))
    finally:
        if batches is not None:
            batches.close()
        if run.log is not None:
            run.log.close()
        run.engine.destroy()
    return FitResult(run.step, run.epochs, finished, reason, run.loss, run.checkpoint)


def _begin(cfg: LoopConfig, task: TrainTask[B], ranks: RankGroup, ctx: TrainContext) -> _Run:
    passes = accumulation(cfg.global_batch, cfg.micro_batch, ranks.world, f"{task.name}.batch")
    # Before the optimiser is made: the module may be rounded for it.
    full = weights_that_learn(task.module)
    optimizer = task.optimizer()
    groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    options = _engine_options(cfg)
    engine, partition = put_on_engine(options, task.module, optimizer, full, ranks, passes)
    task.started(ranks.rank)
    names = [group["name"] for group in groups]
    return _Run(
        cfg=cfg,
        task=task,
        ranks=ranks,
        ctx=ctx,
        engine=engine,
        partition=partition,
        groups=groups,
        norms=GroupNorms(engine, names, replicated=partition.replicated),
        ema=Ema(partition) if cfg.ema_decay else None,
        clock=StepClock(ranks.device),
        passes=passes,
    )


def _engine_options(cfg: LoopConfig) -> LoopConfig:
    """`cfg` without the clipping that `_update_replicated` does itself."""
    return replace(cfg, grad_clip=0.0) if cfg.torch_clips and cfg.zero_stage == 0 else cfg


def _hooks(run: _Run, batches: Iterator[tuple[Cursor, Any]]) -> StepHooks:
    return StepHooks(
        validate=lambda: _validate_if_due(run),
        is_checkpoint_due=lambda: _is_checkpoint_due(run),
        save=lambda: _save(run),
        commit=lambda timeout_s: run.commit(run.ctx.store, timeout_s),
        take_step=lambda: _take_step(run, batches),
    )


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
        run.partition = checkpointing.load(directory, run.engine, run.ema, world)
        if run.ema is not None:
            run.ema.partition = run.partition
        run.restore(directory, state)
        run.skipped = Skipped(**state.get("skipped", {}))
        run.task.restore(state)

    how = "starts" if run.ctx.store.load(read) is None else "resumes"
    _log.info("%s %s step=%d of=%d", run.task.name, how, run.step, run.cfg.steps)


def _is_checkpoint_due(run: _Run) -> bool:
    every = run.cfg.checkpoint_every_steps
    regular = every is not None and run.step > 0 and run.step % every == 0
    return run.due or regular or run.task.needs_checkpoint(run.step)


def _save(run: _Run) -> None:
    def write(directory: Path) -> list[Path]:
        return checkpointing.save(directory, run.engine, run.partition, run.ema)

    skipped = {"skipped": asdict(run.skipped)} if run.skipped.steps else {}
    run.save(run.ctx.store, write, {"facts": _facts(run), **run.task.state(), **skipped})


# Steps


def _take_step(run: _Run, batches: Iterator[tuple[Cursor, RankBatch]]) -> None:
    cfg, clock = run.cfg, run.clock
    clock.reset()
    is_last = cfg.log_last_step and run.step + 1 == cfg.steps
    clock.exact = (run.step + 1) % cfg.log_every_steps == 0 or is_last
    with clock.part("data"):
        after, batch = next(batches)
    rates = _set_rates(run)
    own = _forward_backward(run, batch)
    late = time.monotonic() - run.saved_at >= cfg.checkpoint_every_s
    losses, run.due = _agree(own, late, run.ranks)
    gradient, norms = _update(run, by_group=clock.exact or run.updates == 0)
    what = describe_nonfinite(sum(losses.values()), gradient)
    row: dict[str, Any] = {"trouble": what}
    if what is None:
        row = {**losses, "grad_norm": gradient, **_named("grad_norm", norms)}
        row |= _follow(run, losses["loss"], norms)
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


def _set_rates(run: _Run) -> dict[str, float]:
    """Write this step's rate into each group, by name, and return the rates.

    Every option is written, not the rate alone: a loaded checkpoint brings its own, and DeepSpeed's
    stage 3 can bring those of another group.
    """
    scale = run.task.rate_scale(run.updates)
    rates = {group["name"]: group["lr"] * scale for group in run.groups}
    for group, options in zip(run.engine.optimizer.param_groups, run.groups, strict=True):
        group.update({**options, "lr": rates[options["name"]]})
    return rates


def _forward_backward(run: _Run, batch: RankBatch) -> dict[str, Tensor]:
    """Mean losses of this rank by name, on the device; gradients are in place afterwards."""
    totals: dict[str, Tensor] = {}
    for number, (loss, losses) in enumerate(run.task.losses(run.engine, batch, run.clock)):
        with run.clock.part("backward"):
            skips = run.cfg.on_nonfinite == "skip"
            run.engine.backward(poison_if_nonfinite(loss) if skips else loss)
        for name, value in losses.items():
            mean = value.detach() / run.passes
            totals[name] = totals[name] + mean if name in totals else mean
        if number + 1 < run.passes:
            run.engine.step()  # not a boundary: DeepSpeed only counts it
    return totals


def _agree(own: Mapping[str, Tensor], flag: bool, ranks: RankGroup) -> tuple[Losses, bool]:
    """Mean losses over all ranks, not finite if one rank's is not; whether rank 0's flag is up.

    One all-reduce for both: it is the step's only synchronisation besides DeepSpeed's own.
    """
    raised = torch.tensor(float(flag and ranks.rank == 0), dtype=torch.float64)
    values = [*own.values(), raised.to(ranks.device)]
    both = torch.stack([value.double() for value in values])
    torch.distributed.all_reduce(both)
    *totals, raised_by = both.tolist()
    means = [total / ranks.world for total in totals]
    return dict(zip(own, means, strict=True)), raised_by > 0


def _update(run: _Run, *, by_group: bool) -> tuple[float, dict[str, float]]:
    """Clip and apply the gradients; their norm before clipping, on demand of each group too.

    Where that is not finite, nothing is applied: not to weights, not to moments; then no group's
    is reported. Collective.
    """
    run.norms.watches = by_group
    with run.clock.part("optimizer"):
        whole = _update_replicated(run) if run.partition.replicated else _update_sharded(run)
        measured = by_group and math.isfinite(whole)
        return whole, run.norms.before_clipping(whole) if measured else {}


def _update_sharded(run: _Run) -> float:
    run.engine.step()
    whole = float(run.engine.get_global_grad_norm())
    # DeepSpeed returns -1 for a norm that is not finite.
    return whole if whole >= 0 else math.nan


def _update_replicated(run: _Run) -> float:
    """The same at stage 0, where DeepSpeed clips without reporting the norm, whatever it is."""
    parameters = [p for p in run.engine.module.parameters() if p.grad is not None]
    norm = get_total_norm([p.grad for p in parameters])
    if not math.isfinite(norm):
        run.engine.zero_grad()
        run.engine.micro_steps += 1  # its step would count the last micro-batch
        return float(norm)
    if run.cfg.torch_clips and run.cfg.grad_clip:
        clip_grads_with_norm_(parameters, run.cfg.grad_clip, norm)
    run.engine.step()
    return float(norm)


def _follow(run: _Run, loss: float, norms: dict[str, float]) -> dict[str, float]:
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
    clock, batch_size = run.clock, run.cfg.global_batch
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
    log.speak(row, run.cfg.steps)


# Validation


def _validate_if_due(run: _Run) -> Stop | None:
    """Validate if that is due; the reason to stop if one came up meanwhile."""
    if not run.task.is_validation_due(run.step):
        return None
    with checkpointing.undisturbed_random_state():
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
    tensors = run.ema.tensors if run.ema is not None else run.partition.tensors
    parameters = run.engine.module.named_parameters()
    names = [name for name, parameter in parameters if parameter.requires_grad]
    return gather(run.partition, tensors, names)
