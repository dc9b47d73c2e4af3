"""A lesson: what another model than a denoiser learns, taught as a denoiser is.

Engine, checkpoints, data order, stop, agreement of the ranks and rows of metrics are those of
`sarhpc.training.trainer`. The lesson says what a step is: a module that answers with its loss, and
what each rank shows it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hpc.errors import NumericalError
from hpc.publish import fault
from sarhpc.shards.loader import Cursor
from sarhpc.training.checkpoints import checkpointing
from sarhpc.training.checkpoints.partition import Partition, gather
from sarhpc.training.config import LessonConfig
from sarhpc.training.context import Surroundings
from sarhpc.training.denoising.validation import Stop
from sarhpc.training.engine import put_on_engine, weights_that_learn
from sarhpc.training.metrics.log import MetricsLog, StepClock, pace_of
from sarhpc.training.nonfinite import Trouble, name_trouble, tell
from sarhpc.training.ranks import Ranks, in_touch
from sarhpc.training.schedule import accumulation, check_engine
from sarhpc.training.state import Moves, Standing, TrainResult, advance, require_same_facts
from sarhpc.training.updates import agree, update_sharded

_log = logging.getLogger(__name__)


class Portion(Protocol):
    """What one rank is shown in one step."""

    @property
    def passes(self) -> Sequence[tuple[Sequence[Tensor], float]]:
        """Inputs of the module for each forward pass, and the factor on its loss.

        The factors are 1 on average over all passes and ranks, so that the loss of the step is
        that of its whole batch.
        """

    @property
    def all_keys(self) -> list[str]:
        """Names of what is shown."""


class Lesson(Protocol):
    """What is learnt; the same on every rank but for the portions."""

    @property
    def name(self) -> str:
        """The branch of the configuration, for messages."""

    @property
    def module(self) -> nn.Module:
        """Answers the inputs of a pass with a loss; on the device of this rank."""

    @property
    def samples(self) -> int:
        """Samples of an epoch."""

    def optimizer(self) -> torch.optim.Optimizer:
        """One of torch's over the module's parameters, each group with a name and its rate."""

    def rate(self, step: int) -> float:
        """Share of each group's rate at `step` (from 0)."""

    def feed(self, cursor: Cursor) -> Generator[tuple[Cursor, Portion]]:
        """Yield (cursor after the global batch, this rank's portion of it) from `cursor` on."""

    def opening_rows(self) -> Sequence[Mapping[str, Any]]:
        """What metrics.jsonl tells before the first step."""

    def is_examined(self, step: int) -> bool:
        """Whether what was learnt is looked at after `step` steps."""

    def examine(self, weights: Mapping[str, Tensor]) -> Mapping[str, Any]:
        """A row of metrics on full fp32 `weights` by name. Collective."""


@dataclass(frozen=True)
class Taught:
    """How a lesson ended, and what was learnt."""

    result: TrainResult
    weights: Mapping[str, Tensor]
    """Full fp32 weights by name on the CPU of every rank; empty unless it is finished."""


@dataclass(kw_only=True)
class _Run(Standing):
    """A lesson under way."""

    cfg: LessonConfig
    lesson: Lesson
    ranks: Ranks
    around: Surroundings
    engine: Any
    partition: Partition
    groups: Sequence[Mapping[str, Any]]
    """What the optimiser was told of each group."""
    clock: StepClock
    log: MetricsLog | None = field(default=None)
    examined: int = 0
    """The last step after which what was learnt was looked at."""


def teach(cfg: LessonConfig, lesson: Lesson, ranks: Ranks, around: Surroundings) -> Taught:
    """Train the module of `lesson`, from its newest checkpoint on if there is one.

    Collective: every rank calls it after `ranks.join`. At a step boundary all ranks agree whether
    to stop; they then save the same step and return together.

    Raises:
        ConfigError: the configuration makes no sense, or the checkpoint was taken under another.
        DataError: a sample cannot be used.
        NumericalError: the loss or the gradient is not finite. A report with the keys of the batch
            is in the folder; the last checkpoint is untouched.
        TransientError: a checkpoint could not be written, or another rank is gone.
    """
    check_engine(cfg)
    with in_touch(ranks):
        run = _begin(cfg, lesson, ranks, around)
        batches: Generator[tuple[Cursor, Portion]] | None = None
        try:
            _resume(run)
            _open_log(run)
            batches = lesson.feed(run.cursor)
            finished, reason = advance(run, cfg.steps, around.stop, _moves(run, batches))
            weights = _weights(run) if finished else {}
        finally:
            if batches is not None:
                batches.close()
            if run.log is not None:
                run.log.close()
            run.engine.destroy()
    epochs = run.step * cfg.global_batch // lesson.samples
    result = TrainResult(run.step, epochs, finished, reason, run.loss, run.checkpoint)
    return Taught(result, weights)


def _begin(cfg: LessonConfig, lesson: Lesson, ranks: Ranks, around: Surroundings) -> _Run:
    passes = accumulation(cfg.global_batch, cfg.micro_batch, ranks.world, f"{lesson.name}.batch")
    module = lesson.module.train()
    optimizer = lesson.optimizer()
    groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    full = weights_that_learn(module)
    engine, partition = put_on_engine(_told_to_engine(cfg), module, optimizer, full, ranks, passes)
    # For dropout, which a model may have; a checkpoint brings the state it had.
    torch.manual_seed(cfg.seed + ranks.rank)
    return _Run(
        cfg=cfg,
        lesson=lesson,
        ranks=ranks,
        around=around,
        engine=engine,
        partition=partition,
        groups=groups,
        clock=StepClock(ranks.device),
    )


def _told_to_engine(cfg: LessonConfig) -> LessonConfig:
    """`cfg` without the clipping that `_update` does itself at stage 0."""
    return replace(cfg, grad_clip=0.0) if cfg.zero_stage == 0 else cfg


def _moves(run: _Run, batches: Iterator[tuple[Cursor, Portion]]) -> Moves:
    return Moves(
        pause=lambda: _examine_if_due(run),
        is_checkpoint_due=lambda: _is_checkpoint_due(run),
        save=lambda: _save(run),
        settle=lambda patience_s: run.settle(run.around.store, patience_s),
        take_step=lambda: _take_step(run, batches),
    )


# Checkpoints


def _facts(run: _Run) -> dict[str, Any]:
    """What must be the same when a checkpoint is taken up again."""
    cfg = run.cfg
    return {
        "samples": run.lesson.samples,
        "global_batch": cfg.global_batch,
        "seed": cfg.seed,
        "zero_stage": cfg.zero_stage,
        "precision": cfg.precision,
    }


def _resume(run: _Run) -> None:
    def read(directory: Path, state: Mapping[str, Any]) -> None:
        """Take up the checkpoint in `directory`."""
        require_same_facts(directory, state["facts"], _facts(run))
        saved_world = int(state["world_size"])
        run.partition = checkpointing.load(directory, run.engine, None, saved_world)
        run.take_up(directory, state)
        run.examined = int(state["examined"])

    found = run.around.store.load(read) is not None
    how = "resumes" if found else "starts"
    _log.info("%s %s step=%d of=%d", run.lesson.name, how, run.step, run.cfg.steps)


def _is_checkpoint_due(run: _Run) -> bool:
    every = run.cfg.checkpoint_every_steps
    return run.due or (every is not None and run.step > 0 and run.step % every == 0)


def _save(run: _Run) -> None:
    def write(directory: Path) -> list[Path]:
        return checkpointing.save(directory, run.engine, run.partition, None)

    run.save(run.around.store, write, {"facts": _facts(run), "examined": run.examined})


# Steps


def _take_step(run: _Run, batches: Iterator[tuple[Cursor, Portion]]) -> None:
    cfg, clock = run.cfg, run.clock
    clock.reset()
    clock.exact = (run.step + 1) % cfg.log_every_steps == 0 or run.step + 1 == cfg.steps
    with clock.part("data"):
        after, portion = next(batches)
    rates = _set_rates(run)
    mine = _learn(run, portion)
    late = time.monotonic() - run.saved_at >= cfg.checkpoint_every_s
    (loss,), run.due = agree(mine, late, run.ranks)
    with clock.part("optimizer"):
        gradient = _update(run)
    what = name_trouble(loss, gradient)
    if what is not None:
        _give_up(run, what, portion, float(mine))
    run.step, run.cursor, run.loss = run.step + 1, after, loss
    if run.around.pace is not None and clock.exact:
        run.around.pace.note(run.step, clock.own)
    if run.log is not None and clock.exact:
        _report(run, run.log, {"loss": loss, "lr": max(rates), "grad_norm": gradient})
    fault("training.after_step")


def _set_rates(run: _Run) -> list[float]:
    """Write all that was told of each group: a loaded checkpoint brings what it had."""
    share = run.lesson.rate(run.step)
    rates = [group["lr"] * share for group in run.groups]
    for group, told, rate in zip(run.engine.optimizer.param_groups, run.groups, rates, strict=True):
        group.update({**told, "lr": rate})
    return rates


def _learn(run: _Run, portion: Portion) -> Tensor:
    """Mean loss (1,) of this rank's portion, on the device; gradients are in place afterwards."""
    total = torch.zeros(1, device=run.ranks.device)
    passes = portion.passes
    for number, (inputs, factor) in enumerate(passes):
        if number:
            run.engine.step()  # not a boundary: DeepSpeed only counts it
        with run.clock.part("forward"):
            loss = run.engine(*inputs) * factor
        with run.clock.part("backward"):
            run.engine.backward(loss)
        total += loss.detach() / len(passes)
    return total


def _update(run: _Run) -> float:
    """Clip and apply the gradients; their norm before clipping."""
    if not run.partition.replicated:
        return update_sharded(run.engine)
    # DeepSpeed clips at stage 0 without telling the norm.
    parameters, most = list(run.engine.module.parameters()), run.cfg.grad_clip
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, most or float("inf")))
    if math.isfinite(norm):
        run.engine.step()
    return norm


def _give_up(run: _Run, what: str, portion: Portion, loss: float) -> None:
    """Tell of the step on all ranks, and end.

    Raises:
        NumericalError: always.
    """
    epoch = run.step * run.cfg.global_batch // run.lesson.samples
    trouble = Trouble(what, run.step + 1, epoch, portion, loss, run.safe_step)
    path = tell(trouble, run.ranks, run.around, then="stopped")
    raise NumericalError(
        f"{what} at step {trouble.step}; the batch is in {path}. The checkpoint of step "
        f"{trouble.saved} is whole: look at those samples, or start a new run with a lower "
        f"{run.lesson.name}.lr or in fp32"
    )


# Metrics


def _open_log(run: _Run) -> None:
    if run.ranks.rank > 0:
        return
    fresh = run.saved is None
    run.log = MetricsLog(run.around.folder / "metrics.jsonl", -1 if fresh else run.step)
    for row in run.lesson.opening_rows() if fresh else ():
        run.log.write({"step": 0, **row, "time": time.time()})


def _report(run: _Run, log: MetricsLog, values: Mapping[str, float]) -> None:
    row = {
        "step": run.step,
        "epoch": run.step * run.cfg.global_batch / run.lesson.samples,
        **values,
        **run.told_stall(),
        **pace_of(run.clock, run.clock.total, run.cfg.global_batch, run.ranks.device),
    }
    log.write(row)
    log.speak(row, run.cfg.steps)


def _examine_if_due(run: _Run) -> Stop | None:
    """Look at what was learnt if that is due; seconds, so no stop is asked for meanwhile."""
    if run.examined == run.step or not run.lesson.is_examined(run.step):
        return None
    with checkpointing.undisturbed_random_state():
        row = run.lesson.examine(_weights(run))
    run.examined = run.step
    if run.log is not None:
        run.log.write({"step": run.step, **row, "time": time.time()})
    return None


def _weights(run: _Run) -> dict[str, Tensor]:
    """Full fp32 weights by name, on the CPU of every rank."""
    parameters = run.engine.module.named_parameters()
    names = [name for name, parameter in parameters if parameter.requires_grad]
    return gather(run.partition, run.partition.tensors, names)
