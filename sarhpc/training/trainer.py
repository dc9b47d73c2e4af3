"""The training loop: resume, then paint, save, stop and step, all ranks together."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from hpc.publish import fault
from sarhpc.shards.loader import Cursor
from sarhpc.training.checkpoints import checkpointing
from sarhpc.training.checkpoints.partition import gather
from sarhpc.training.config import TrainConfig
from sarhpc.training.context import Surroundings
from sarhpc.training.denoising import grids, validation
from sarhpc.training.denoising.data import Samples, Share
from sarhpc.training.denoising.prior import feed_with_prior
from sarhpc.training.denoising.progress import draw_progress
from sarhpc.training.denoising.start import load_base
from sarhpc.training.denoising.stepper import Stepper
from sarhpc.training.denoising.validation import Stop
from sarhpc.training.ema import Ema
from sarhpc.training.engine import Denoiser, set_rates, start_engine
from sarhpc.training.export import with_weights
from sarhpc.training.metrics.gradient_norms import require_gradients
from sarhpc.training.metrics.log import MetricsLog, pace_of
from sarhpc.training.metrics.utilisation import Utilisation, utilisation
from sarhpc.training.nonfinite import Skipped, Trouble, name_trouble, skip
from sarhpc.training.ranks import Ranks, in_touch
from sarhpc.training.schedule import Length, check, ema_decay, length, rate_scale
from sarhpc.training.state import (
    Moves,
    Standing,
    TrainResult,
    advance,
    require_same_facts,
)
from sarhpc.training.updates import agree

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class _Run(Standing):
    """A training under way."""

    cfg: TrainConfig
    base: Path
    samples: Samples
    ranks: Ranks
    around: Surroundings
    length: Length
    stepper: Stepper
    ema: Ema | None
    skipped: Skipped = field(default_factory=Skipped)
    warned: bool = False
    """Whether captions that are too long have been spoken of."""
    use: Utilisation | None = None
    """What a step takes of the machine; counted when the first is told of."""

    @property
    def updates(self) -> int:
        """Updates done in all attempts: the place in the schedules of rate and average."""
        return self.step - self.skipped.steps


def train(
    cfg: TrainConfig, base: Path, samples: Samples, ranks: Ranks, around: Surroundings
) -> TrainResult:
    """Fine-tune bundle `base` on `samples`, from its newest checkpoint on if there is one.

    Collective: every rank calls it after `ranks.join`. At a step boundary all ranks agree whether
    to stop; they then save the same step and return together.

    Raises:
        ConfigError: the configuration makes no sense, or the checkpoint was taken under another.
        DataError: the base model or a sample cannot be used.
        NumericalError: the loss or the gradient is not finite and such a step is not skipped, or a
            group gets no gradient. A report with the keys of the batch is in the folder; the last
            checkpoint is untouched.
        TransientError: a checkpoint could not be written, or another rank is gone.
    """
    check(cfg)
    with in_touch(ranks):
        return _train(cfg, base, samples, ranks, around)


def _train(
    cfg: TrainConfig, base: Path, samples: Samples, ranks: Ranks, around: Surroundings
) -> TrainResult:
    run = _begin(cfg, base, samples, ranks, around)
    _resume(run)
    log = _open_log(run) if ranks.rank == 0 else None
    batches = feed_with_prior(cfg, samples, run.cursor, run.step, ranks, run.stepper.stored)
    moves = Moves(
        pause=lambda: _paint_if_due(run),
        is_checkpoint_due=lambda: _is_checkpoint_due(run),
        save=lambda: _save(run),
        settle=lambda patience_s: run.settle(run.around.store, patience_s),
        take_step=lambda: _take_step(run, batches, log),
    )
    try:
        finished, reason = advance(run, run.length.steps, around.stop, moves)
    finally:
        batches.close()
        if log is not None:
            log.close()
        run.stepper.engine.destroy()
    return TrainResult(
        step=run.step,
        epochs=run.length.epoch(run.step),
        finished=finished,
        reason=reason,
        loss=run.loss,
        checkpoint=run.checkpoint,
    )


def _begin(
    cfg: TrainConfig, base: Path, samples: Samples, ranks: Ranks, around: Surroundings
) -> _Run:
    extent = length(cfg, len(samples), ranks.world)
    bundle = load_base(cfg, base)
    model = Denoiser(bundle.family, bundle.models)
    engine, partition = start_engine(cfg, model, ranks, extent.accumulation)
    stepper = Stepper(cfg, bundle, engine, partition, ranks, around.latents)
    average = Ema(partition) if cfg.ema_decay > 0 else None
    return _Run(
        cfg=cfg,
        base=base,
        samples=samples,
        ranks=ranks,
        around=around,
        length=extent,
        stepper=stepper,
        ema=average,
    )


# Checkpoints


def _facts(run: _Run) -> dict[str, Any]:
    """What must be the same when a checkpoint is taken up again."""
    cfg = run.cfg
    return {
        "samples": len(run.samples),
        "global_batch": cfg.global_batch,
        "seed": cfg.seed,
        "zero_stage": cfg.zero_stage,
        "precision": cfg.precision,
        "average": cfg.ema_decay > 0,
    }


def _resume(run: _Run) -> None:
    def read(directory: Path, state: Mapping[str, Any]) -> None:
        """Take up the checkpoint in `directory`."""
        require_same_facts(directory, state["facts"], _facts(run))
        engine = run.stepper.engine
        run.stepper.partition = checkpointing.load(
            directory, engine, run.ema, int(state["world_size"])
        )
        if run.ema is not None:
            run.ema.partition = run.stepper.partition
        run.take_up(directory, state)
        run.skipped = Skipped(**state.get("skipped", {}))

    if run.around.store.load(read) is None:
        _log.info("training starts base=%s steps=%d", run.base, run.length.steps)
    else:
        _log.info("training resumes step=%d of=%d", run.step, run.length.steps)


def _is_checkpoint_due(run: _Run) -> bool:
    every = run.cfg.checkpoint_every_steps
    regular = every is not None and run.step > 0 and run.step % every == 0
    # What a grid was judged by has to be there when it is chosen.
    return run.due or regular or (run.around.judge is not None and _is_grid_step(run))


def _save(run: _Run) -> None:
    def write(directory: Path) -> list[Path]:
        stepper = run.stepper
        return checkpointing.save(directory, stepper.engine, stepper.partition, run.ema)

    skipped = {"skipped": asdict(run.skipped)} if run.skipped.steps else {}
    run.save(run.around.store, write, {"facts": _facts(run), **skipped})


# Steps


def _take_step(run: _Run, batches: Iterator[tuple[Cursor, Share]], log: MetricsLog | None) -> None:
    cfg, stepper = run.cfg, run.stepper
    stepper.clock.reset()
    stepper.clock.exact = (run.step + 1) % cfg.log_every_steps == 0
    with stepper.clock.part("data"):
        after, share = next(batches)
    rates = set_rates(stepper.engine, cfg, rate_scale(cfg, run.updates, run.length.steps))
    mine = stepper.learn(share)
    late = time.monotonic() - run.saved_at >= cfg.checkpoint_every_s
    (loss, prior_loss), run.due = agree(mine, late, run.ranks)
    gradient, norms = stepper.update(by_group=stepper.clock.exact or run.updates == 0)
    what = name_trouble(loss + prior_loss, gradient)
    row: dict[str, Any] = {"trouble": what}
    if what is None:
        prior = {} if cfg.prior is None else {"prior_loss": prior_loss}
        row = {"loss": loss, **prior, **_named("lr", rates), "grad_norm": gradient}
        row |= _named("grad_norm", norms) | {"ema_decay": _learnt(run, loss, norms)}
    else:
        step, epoch = run.step + 1, run.length.epoch(run.step)
        trouble = Trouble(what, step, epoch, share, float(mine.sum()), run.safe_step)
        run.skipped = skip(cfg, trouble, run.skipped, run.ranks, run.around)
    run.step, run.cursor = run.step + 1, after
    if run.around.pace is not None and stepper.clock.exact:
        run.around.pace.note(run.step, stepper.clock.own)
    if log is not None and (stepper.clock.exact or what is not None):
        _report(run, log, {**row, **_cut_captions(run)}, image_px=share.images.shape[-1])
    fault("training.after_step")


def _learnt(run: _Run, loss: float, norms: dict[str, float]) -> float:
    """The decay by which the average has followed a step that was an update."""
    if run.updates == 0:
        require_gradients(norms)
    decay = ema_decay(run.cfg, run.updates)
    if run.ema is not None:
        run.ema.update(decay)
    run.loss, run.skipped = loss, run.skipped.with_update()
    return decay


def _cut_captions(run: _Run) -> dict[str, int]:
    """How many captions of rank 0's share were not read to their end, if any were."""
    cut = run.stepper.captions_cut
    if cut and not run.warned:
        run.warned = True
        _log.warning(
            "step=%d captions_cut=%d: the text encoder reads 75 tokens of a caption and no more; "
            "metrics.jsonl counts them, shorter captions cure it", run.step, cut,
        )  # fmt: skip
    return {"captions_cut": cut} if cut else {}


def _named(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in values.items()}


def _open_log(run: _Run) -> MetricsLog:
    path = run.around.folder / "metrics.jsonl"
    return MetricsLog(path, run.step, tensorboard=run.cfg.tensorboard, wandb=run.cfg.wandb)


def _report(run: _Run, log: MetricsLog, values: Mapping[str, Any], image_px: int) -> None:
    clock = run.stepper.clock
    seconds = clock.total
    if run.use is None:
        with checkpointing.undisturbed_random_state():
            run.use = utilisation(run.cfg, run.base, image_px, run.ranks)
    row = {
        "step": run.step,
        "epoch": run.step * run.cfg.global_batch / run.length.samples,
        **values,
        **({"skipped": run.skipped.steps} if run.skipped.steps else {}),
        **run.use.row(seconds),
        **run.told_stall(),
        **pace_of(clock, seconds, run.cfg.global_batch, run.ranks.device),
    }
    log.write(row)
    log.speak(row, run.length.steps)


# Validation


def _paint_if_due(run: _Run) -> Stop | None:
    """Paint the grid of this step if it is due; the reason to stop if one came up meanwhile."""
    if not _is_grid_due(run):
        return None
    folder = run.around.folder / "validation"
    images = grids.planned(run.cfg, run.step, run.length.epoch(run.step))
    with checkpointing.undisturbed_random_state():
        bundle = with_weights(load_base(run.cfg, run.base), _current_weights(run))
        for _ in validation.paint(run.cfg, bundle, images, folder, run.ranks, run.samples):
            reason = run.around.stop.agree()
            if reason and reason.stops:
                return reason
            run.due = run.due or reason is not None
    run.around.communicator.barrier()
    if run.ranks.rank == 0:
        draw_progress(run.cfg, folder, images)
        grids.enter_in_index(folder, images, _judged(run, folder, images))
    run.around.communicator.barrier()
    return None


def _judged(run: _Run, folder: Path, images: list[grids.GridImage]) -> dict[str, float] | None:
    if run.around.judge is None:
        return None
    found = run.around.judge(validation.read_painted(folder, images))
    _log.info("grid step=%d %s", run.step, " ".join(f"{k}={v:.4g}" for k, v in found.items()))
    return found


def _is_grid_due(run: _Run) -> bool:
    painted = run.around.folder / "validation"
    return _is_grid_step(run) and not grids.is_painted(painted, run.step)


def _is_grid_step(run: _Run) -> bool:
    every = run.cfg.validation_every_steps
    if every == 0 or not run.cfg.validation_prompts:
        return False
    ends = run.step in (0, run.length.steps)
    regular = run.length.ends_epoch(run.step) if every is None else run.step % every == 0
    return ends or regular


def _current_weights(run: _Run) -> dict[str, Tensor]:
    """Averaged weights if there are any, raw ones otherwise, full and fp32, on every rank."""
    partition = run.stepper.partition
    tensors = run.ema.tensors if run.ema is not None else partition.tensors
    parameters = run.stepper.engine.module.named_parameters()
    names = [name for name, parameter in parameters if parameter.requires_grad]
    return gather(partition, tensors, names)
