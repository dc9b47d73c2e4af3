"""A fine-tuning of BLIP on one rank in this process: engine, store and stop request as in a job."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch

from hpc.job.agreement import RankGroup
from hpc.job.checkpoint import CheckpointStore
from hpc.job.stop import StopRequest
from hpc.store.rundir import RunDir
from sarhpc.captioning.config import CaptionTrainConfig
from sarhpc.captioning.tuning.finetune import CaptionTrainResult, train_captioner
from sarhpc.captioning.tuning.task import CaptionTask
from sarhpc.stages.caption_judging import judged_record, load_chosen
from sarhpc.stages.caption_train import loop_config, stop_check
from sarhpc.stages.work.ranks import require_finished
from sarhpc.training.context import TrainContext
from sarhpc.training.judged import best_steps
from sarhpc.training.ranks import join, leave
from sarhpc.training.trainer import fit

STOP = "STOP"
"""Touched in the folder of a fine-tuning it asks for its end."""


@contextlib.contextmanager
def process_as_before() -> Iterator[None]:
    """What joining the ranks of a training changes of this process is put back at the end."""
    threads = torch.get_num_threads()
    with mock.patch.dict(os.environ):
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(False)
            torch.set_num_threads(threads)


@contextlib.contextmanager
def joined_alone(cfg: CaptionTrainConfig) -> Iterator[RankGroup]:
    """This process as the only rank."""
    with process_as_before():
        try:
            yield join(cfg.threads, deterministic=True, seed=cfg.seed, on_cpu=True)
        finally:
            leave()


def fine_tune(
    cfg: CaptionTrainConfig,
    out: Path,
    folder: Path,
    ranks: RankGroup | None = None,
    attempt: int = 0,
) -> CaptionTrainResult:
    """Fine-tune as `cfg` says; rows, checkpoints and tables go to `folder`, which may hold STOP.

    Alone in this process, or as one of `ranks`.
    """
    if ranks is None:
        with joined_alone(cfg) as alone:
            return fine_tune(cfg, out, folder, alone, attempt)
    run = RunDir(folder)
    store = CheckpointStore(
        folder / "checkpoints",
        ranks,
        attempt,
        cfg.keep_last,
        also_keep=lambda: best_steps(folder, cfg.judge),
    )
    with StopRequest(ranks, stop_file=folder / STOP, poll_s=0.0) as stop:
        ctx = TrainContext(folder, store, stop)

        def fitted(task: CaptionTask) -> int:
            """Train to the end; the step whose weights are published."""
            last = require_finished(run, fit(loop_config(cfg, ranks.world), task, ranks, ctx))
            return load_chosen(task, cfg, ranks, folder, last, None)

        record, check = judged_record(folder), stop_check(run, ctx)
        return train_captioner(cfg, out, folder, ranks, fitted, check, record)
