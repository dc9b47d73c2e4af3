"""Judging a fine-tuning of captioner or CLIP on held-out captions, and what is published of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hpc.errors import DataError, VerificationError
from hpc.store.rundir import RunDir
from sarhpc.captioning.config import CaptionTrainConfig
from sarhpc.stages.judging import samples_by_split
from sarhpc.training.judged import FOLDER, Choice, chosen_checkpoint, publish_index

if TYPE_CHECKING:
    from torch import Tensor

    from hpc.job.agreement import RankGroup
    from hpc.job.signatures import RunSignature
    from sarhpc.captioning.tuning.task import Record

HELD_OUT = "val"
"""Split of the run's own tiles that no captioner learns from."""


class Learned(Protocol):
    """A training task that has ended."""

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights, by the names of what learns, into the model that is published."""


class Chooses(Protocol):
    """The settings of a fine-tuning, as far as they choose what is published."""

    @property
    def judge(self) -> Choice | None:
        """What chooses the checkpoint; None takes the last."""

    @property
    def ema_decay(self) -> float:
        """Decay of the averaged weights; 0 where there are none."""


def require_held_out_tiles(run: RunDir, cfg: CaptionTrainConfig | None) -> None:
    """Raise DataError if the run's own held-out tiles are to judge and there are none."""
    if cfg is None or cfg.judge is None or cfg.train:
        return
    counts = samples_by_split(run, "tile")
    if not counts.get(HELD_OUT):
        raise DataError(
            f"caption_train.judge needs tiles of split {HELD_OUT}; there are {counts}. Start a new "
            "run with other fractions (tile.split.fractions), name held-out sets "
            "(caption_train.train and .val), or leave caption_train.judge out"
        )


def judged_record(folder: Path) -> Record:
    """What publishes the judged rows of the fine-tuning in `folder`."""
    return lambda step, row: publish_index(folder / FOLDER, step, [], row)


def load_chosen(
    task: Learned,
    cfg: Chooses,
    ranks: RankGroup,
    folder: Path,
    last: Path,
    signature: RunSignature | None,
) -> int:
    """Step of the checkpoint that is published, whose weights are now in the model. Collective.

    Args:
        task: ended, with the weights of its last step in the model.
        cfg: the fine-tuning.
        ranks: this process among the others.
        folder: of the stage.
        last: the checkpoint of the last step.
        signature: knows the checkpoints of the run; None takes every one.

    Raises:
        VerificationError: the best checkpoint is damaged, or was not written by this run.
    """
    from sarhpc.training.checkpoints.checkpointing import read_weights

    chosen = last.with_name(ranks.broadcast(chosen_checkpoint(folder, cfg.judge, last).name))
    if chosen != last:
        _require_sound(chosen, signature)
        task.load(read_weights(chosen, average=cfg.ema_decay > 0))
    return int(chosen.name.removeprefix("step_"))


def _require_sound(checkpoint: Path, signature: RunSignature | None) -> None:
    from hpc.job.manifest import find_problem, read_manifest

    problem = find_problem(checkpoint, read_manifest(checkpoint).files, deep=True)
    if problem is None and signature is not None:
        problem = signature.find_problem(checkpoint)
    if problem is not None:
        raise VerificationError(
            f"{checkpoint} was judged the best and is not published: {problem}. Remove it and "
            "resume the run to publish the next best"
        )
