"""A fine-tuning of BLIP on one rank in this process: engine, store and stop request as in a job."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest import mock

import torch

from hpc.job.agreement import TorchCommunicator
from hpc.job.checkpoint import CheckpointStore
from hpc.job.stop import StopRequest
from hpc.store.rundir import RunDir
from sarhpc.captioning.config import CaptionTrainConfig
from sarhpc.captioning.tuning.finetune import CaptionTrainResult, train_captioner
from sarhpc.captioning.tuning.task import CaptionLesson
from sarhpc.stages.caption_train import company, lesson_config
from sarhpc.stages.ranks import require_finished
from sarhpc.training.context import Surroundings
from sarhpc.training.lesson import teach
from sarhpc.training.ranks import Ranks, join, leave

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
def joined_alone(cfg: CaptionTrainConfig) -> Iterator[Ranks]:
    """This process as the only rank."""
    with process_as_before():
        try:
            yield join(cfg.threads, deterministic=True, seed=cfg.seed, on_cpu=True)
        finally:
            leave()


def fine_tune(
    cfg: CaptionTrainConfig, out: Path, folder: Path, ranks: Ranks | None = None, attempt: int = 0
) -> CaptionTrainResult:
    """Fine-tune as `cfg` says; rows, checkpoints and tables go to `folder`, which may hold STOP.

    Alone in this process, or as one of `ranks`.
    """
    if ranks is None:
        with joined_alone(cfg) as alone:
            return fine_tune(cfg, out, folder, alone, attempt)
    communicator, run = TorchCommunicator(), RunDir(folder)
    store = CheckpointStore(folder / "checkpoints", communicator, attempt, cfg.keep_last)
    with StopRequest(communicator, stop_file=folder / STOP, poll_s=0.0) as stop:
        around = Surroundings(folder, store, stop, communicator)

        def taught(lesson: CaptionLesson) -> Mapping[str, torch.Tensor]:
            """What was learnt at the end."""
            ended = teach(lesson_config(cfg, ranks.world), lesson, ranks, around)
            require_finished(run, ended.result)
            return ended.weights

        return train_captioner(cfg, out, company(run, ranks, around), taught)
