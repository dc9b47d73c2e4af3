"""A signal to one rank ends all ranks at one saved step, within seconds."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from training_ranks import Job, finish, start, tiny_config

from sarhpc.training.denoising.grids import read_index
from sarhpc.training.metrics.log import read_rows

pytestmark = pytest.mark.slow

PATIENCE_S = 240


def wait_for(condition: Callable[[], bool], *, within_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "what was waited for never came"
        time.sleep(0.02)


def saved_steps(job: Job) -> list[int]:
    return sorted(int(path.name[5:]) for path in (job.root / "checkpoints").glob("step_*"))


def test_sigusr2_to_one_rank_saves_the_same_step_on_all_and_ends_them(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    job = Job(tiny_bundle, tmp_path, tiny_config(max_steps=100_000, epochs=100_000))
    metrics = tmp_path / "metrics.jsonl"
    ranks = start(job)
    wait_for(lambda: metrics.is_file() and len(read_rows(metrics)) >= 2)

    os.kill(ranks[1].pid or 0, signal.SIGUSR2)
    signalled = time.monotonic()

    assert finish(ranks) == [0, 0]
    assert time.monotonic() - signalled < 30
    assert saved_steps(job) == [read_rows(metrics)[-1]["step"]]


def test_signal_during_validation_does_not_wait_for_the_grid(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    cfg = tiny_config(validation_every_steps=1, validation_seeds=list(range(5000)))
    job = Job(tiny_bundle, tmp_path, cfg)
    ranks = start(job)
    wait_for(lambda: any((tmp_path / "validation").rglob("*.png")))

    os.kill(ranks[0].pid or 0, signal.SIGTERM)
    signalled = time.monotonic()

    assert finish(ranks) == [0, 0]
    assert time.monotonic() - signalled < 30
    assert read_index(tmp_path / "validation") == []
