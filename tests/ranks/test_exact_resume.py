"""Half a training, a real SIGKILL and the rest are the undisturbed training, bit for bit."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from training_ranks import (
    Job,
    RandomTiles,
    contents,
    differences,
    step_folder,
    tiny_config,
    train_ranks,
)

from sarhpc.shards.loader import Cursor, SampleOrder, batches

KILL = -9


def next_keys(job: Job, step: int) -> list[str]:
    """Keys of the batch that follows a checkpoint, from the cursor it holds."""
    cursor = Cursor(**contents(step_folder(job, step))["state"]["cursor"])
    order = SampleOrder(job.cfg.seed, len(job.samples))
    _, numbers = next(batches(order, cursor, job.cfg.global_batch))
    return [job.samples.key(number) for number in numbers]


def assert_same_end(job: Job, other: Job, step: int) -> None:
    one, two = contents(step_folder(job, step)), contents(step_folder(other, step))
    files = "\n".join(one)
    for part in ("model_states", "optim_states", "ema/rank_00001", "rng/rank_00001"):
        assert part in files
    assert differences(one, two) == []
    assert next_keys(job, step) == next_keys(other, step)


def run_with_kill(
    base: Path,
    folder: Path,
    faults: dict[int, str],
    steps: int,
    every: int,
    samples: RandomTiles = RandomTiles(),  # noqa: B008 (frozen)
    **changes: Any,
) -> tuple[Job, Job]:
    """The jobs of an undisturbed training and of one that was killed and resumed."""
    patience_s = max(400.0, 20.0 * steps)
    changes |= {"max_steps": steps, "epochs": 1000}
    whole = Job(base, folder / "whole", tiny_config(**changes), samples=samples)
    assert train_ranks(whole, timeout_s=patience_s) == [0, 0]

    rhythm = tiny_config(checkpoint_every_steps=every, **changes)
    killed = Job(base, folder / "killed", rhythm, faults=faults, samples=samples)
    codes = train_ranks(killed, timeout_s=patience_s)
    assert KILL in codes
    assert None not in codes, "a surviving rank hung instead of ending"
    assert 0 not in codes
    resumed = Job(base, folder / "killed", rhythm, attempt=2, samples=samples)
    assert not step_folder(resumed, steps).exists()
    assert train_ranks(resumed, timeout_s=patience_s) == [0, 0]
    return whole, resumed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "changes"),
    [
        pytest.param(
            {1: "training.after_step:4:kill"},
            {"zero_stage": 1, "precision": "bf16", "gradient_checkpointing": True},
            id="zero1-one-rank-killed",
        ),
        pytest.param(
            {0: "training.after_step:4:kill", 1: "training.after_step:4:kill"},
            {"zero_stage": 2, "cache_latents": True, "azimuth_flip": True},
            id="zero2-both-ranks-killed",
        ),
        pytest.param(
            {1: "training.save_file:4:kill"},
            {"zero_stage": 3},
            id="zero3-killed-while-saving-the-end",
        ),
    ],
)
def test_three_steps_kill_and_three_more_equal_six(
    tiny_bundle: Path, tmp_path: Path, faults: dict[int, str], changes: dict[str, Any]
) -> None:
    whole, resumed = run_with_kill(tiny_bundle, tmp_path, faults, steps=6, every=3, **changes)
    assert_same_end(whole, resumed, 6)


@pytest.mark.slow
def test_a_kill_while_a_checkpoint_becomes_durable_goes_back_to_the_one_before(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    faults = {1: "checkpoint.settle:2:wait,training.after_step:5:kill"}
    whole, resumed = run_with_kill(tiny_bundle, tmp_path, faults, steps=6, every=2)
    # Step 5 was taken while rank 1 still waited for its disk: what it had written was lost.
    assert json.loads((step_folder(resumed, 4) / "MANIFEST.json").read_text())["attempt"] == 2
    assert_same_end(whole, resumed, 6)


@pytest.mark.slow
def test_a_training_that_ends_commits_what_still_became_durable(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    cfg = tiny_config(max_steps=3, checkpoint_every_steps=2, log_every_steps=1)
    job = Job(tiny_bundle, tmp_path, cfg, faults={0: "checkpoint.settle:1:wait"})
    assert train_ranks(job) == [0, 0]
    assert step_folder(job, 2).is_dir()
    assert step_folder(job, 3).is_dir()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    # The step after the one that was saved was told of before that was committed.
    durable = json.loads((step_folder(job, 2) / "MANIFEST.json").read_text())["created"]
    assert rows[2]["time"] < durable
    assert 0 < rows[2]["checkpoint_s"] < durable - rows[1]["time"]


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_twenty_steps_kill_and_twenty_more_equal_forty(
    tiny_bundle: Path, tmp_path: Path, stage: int
) -> None:
    faults = {stage % 2: "training.after_step:21:kill"}
    whole, resumed = run_with_kill(
        tiny_bundle, tmp_path, faults, steps=40, every=20, zero_stage=stage
    )
    assert_same_end(whole, resumed, 40)


@pytest.mark.slow
def test_torn_newest_checkpoint_gives_way_to_the_one_before(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    cfg = tiny_config(max_steps=4, checkpoint_every_steps=2)
    job = Job(tiny_bundle, tmp_path / "run", cfg)
    assert train_ranks(job) == [0, 0]
    shutil.copytree(job.root, tmp_path / "before")
    torn = next((step_folder(job, 4) / "deepspeed" / "state").glob("*rank_1_*"))
    torn.write_bytes(torn.read_bytes()[:-100])

    assert train_ranks(Job(tiny_bundle, job.root, cfg, attempt=2)) == [0, 0]

    assert_same_end(Job(tiny_bundle, tmp_path / "before", cfg), job, 4)


@pytest.mark.slow
def test_full_disk_on_one_rank_ends_all_ranks_and_keeps_the_older_checkpoint(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    # Rank 1 writes one file per save at stage 2: the second save fails.
    faults = {1: "training.save_file:2:enospc"}
    cfg = tiny_config(max_steps=4, checkpoint_every_steps=2)
    job = Job(tiny_bundle, tmp_path, cfg, faults=faults)
    begin = time.monotonic()

    assert train_ranks(job) == [75, 75]

    assert time.monotonic() - begin < 200
    assert [path.name for path in (tmp_path / "checkpoints").glob("step_*")] == ["step_00000002"]
