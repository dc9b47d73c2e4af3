"""A step that is not finite is skipped on all ranks, and leaves no trace but its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_exact_resume import KILL
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
from sarhpc.training.checkpoints.checkpointing import read_weights
from sarhpc.training.config import OffloadConfig
from sarhpc.training.metrics.log import read_rows
from sarhpc.training.schedule import ema_decay, rate_scale

pytestmark = pytest.mark.slow

STEPS, BATCH, SAMPLES = 5, 8, 40
MOVED = {"global_steps", "global_samples", "skipped_steps", "overflow", "lr"}
"""What of a checkpoint a skipped step moves beside the run's own place: what DeepSpeed counts, its
word on the last step, and the rate this step would have had; each step writes the last two anew."""


def poisoned_at(step: int, place: int) -> RandomTiles:
    """Tiles of one epoch, NaN in one of the samples of a step alone."""
    number = SampleOrder(0, SAMPLES).epoch(0)[(step - 1) * BATCH + place]
    return RandomTiles(n=SAMPLES, poisoned=int(number))


def rows(job: Job) -> list[dict[str, Any]]:
    return read_rows(job.root / "metrics.jsonl")


def run_around(base: Path, root: Path, samples: RandomTiles, **changes: Any) -> tuple[Job, Job]:
    """A training of five steps, and one that a kill after the fourth made go on from the third."""
    cfg = tiny_config(
        max_steps=STEPS, on_nonfinite="skip", checkpoint_every_steps=1, warmup_steps=4, **changes
    )
    whole = Job(base, root / "whole", cfg, samples=samples, keep_every=1)
    assert train_ranks(whole) == [0, 0]
    faults = {1: "training.after_step:4:kill"}
    killed = Job(base, root / "killed", cfg, samples=samples, keep_every=1, faults=faults)
    assert KILL in train_ranks(killed)
    assert max(path.name for path in (killed.root / "checkpoints").glob("step_*")) == (
        "step_00000003"
    )
    resumed = Job(base, root / "killed", cfg, attempt=2, samples=samples, keep_every=1)
    assert train_ranks(resumed) == [0, 0]
    return whole, resumed


CPU = OffloadConfig()
ENGINES = [
    pytest.param({"zero_stage": 0}, id="zero0", marks=pytest.mark.long),
    pytest.param({"zero_stage": 2}, id="zero2"),
    pytest.param({"zero_stage": 3, "precision": "bf16"}, id="zero3-bf16", marks=pytest.mark.long),
    pytest.param({"zero_stage": 1, "precision": "bf16"}, id="zero1-bf16", marks=pytest.mark.long),
    pytest.param({"zero_stage": 2, "precision": "bf16"}, id="zero2-bf16", marks=pytest.mark.long),
    pytest.param({"zero_stage": 3}, id="zero3", marks=pytest.mark.long),
    pytest.param({"zero_stage": 1, "offload": CPU}, id="zero1-offload", marks=pytest.mark.long),
    pytest.param({"zero_stage": 2, "offload": CPU}, id="zero2-offload", marks=pytest.mark.long),
    pytest.param(
        {"zero_stage": 3, "precision": "bf16", "offload": OffloadConfig(parameters="cpu")},
        id="zero3-all-offloaded",
        marks=pytest.mark.long,
    ),
]


@pytest.mark.parametrize("changes", ENGINES)
def test_a_skipped_step_moves_its_place_and_nothing_else(
    tiny_bundle: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    # In the second of two micro-batches of rank 1: what was gathered before has to go as well.
    samples = poisoned_at(step=3, place=6)
    whole, resumed = run_around(tiny_bundle, tmp_path, samples, **changes)

    before, after = contents(step_folder(whole, 2)), contents(step_folder(whole, 3))
    states = before.pop("state"), after.pop("state")
    assert [state["cursor"]["sample"] for state in states] == [16, 24]
    assert [state.get("skipped") for state in states] == [None, {"steps": 1, "in_a_row": 1}]
    assert {place.split(":")[0].split("/")[-1] for place in differences(before, after)} <= MOVED

    # The resumed ranks never held the gradients of the third step.
    ends = [contents(step_folder(job, STEPS)) for job in (whole, resumed)]
    assert differences(*ends) == []
    weights = read_weights(step_folder(whole, STEPS), average=True)
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_rates_and_averages_go_on_where_the_last_update_left_them(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    samples = poisoned_at(step=1, place=0)
    whole, resumed = run_around(tiny_bundle, tmp_path, samples, zero_stage=2)
    (first, *others), cfg = rows(whole), whole.cfg
    assert first["trouble"] == "the loss is nan"
    assert {"loss", "grad_norm", "grad_norm_unet", "lr_unet"}.isdisjoint(first)
    for update, row in enumerate(others):
        assert row["step"] == update + 2
        assert row["lr_unet"] == cfg.lr_unet * rate_scale(cfg, update, STEPS)
        assert row["ema_decay"] == ema_decay(cfg, update)
        assert row["grad_norm_text_encoder"] > 0
    assert [row["skipped"] for row in rows(resumed)] == [1] * STEPS
    assert [row.get("loss") for row in rows(resumed)] == [row.get("loss") for row in rows(whole)]

    document = json.loads((whole.root / "trouble_step_00000001.json").read_text())
    assert document["then"] == "skipped"
    assert [rank["loss"] == "nan" for rank in document["ranks"]] == [True, False]
    assert samples.key(samples.poisoned or 0) in document["ranks"][0]["keys"]


def test_one_rank_skips_what_two_skip(tiny_bundle: Path, tmp_path: Path) -> None:
    samples = poisoned_at(step=2, place=7)
    cfg = tiny_config(max_steps=4, on_nonfinite="skip")
    found = []
    for world in (1, 2):
        job = Job(tiny_bundle, tmp_path / str(world), cfg, samples=samples)
        assert train_ranks(job, world) == [0] * world
        found.append(rows(job))
    losses = [[row.get("loss") for row in each] for each in found]
    assert [loss is None for loss in losses[0]] == [False, True, False, False]
    assert losses[0][1] is losses[1][1] is None
    assert losses[0][2:] == pytest.approx(losses[1][2:], rel=1e-5)


def test_without_trouble_nothing_differs_from_a_training_that_would_stop(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    jobs = [
        Job(tiny_bundle, tmp_path / policy, tiny_config(max_steps=2, on_nonfinite=policy))
        for policy in ("stop", "skip")
    ]
    assert [train_ranks(job) for job in jobs] == [[0, 0], [0, 0]]
    stopping, skipping = (contents(step_folder(job, 2)) for job in jobs)
    assert differences(stopping, skipping) == []


def test_a_training_that_stopped_goes_on_as_if_it_had_been_allowed_to_skip(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    samples = poisoned_at(step=3, place=0)
    stopping, skipping = (
        tiny_config(max_steps=4, checkpoint_every_steps=1, on_nonfinite=policy)
        for policy in ("stop", "skip")
    )
    stopped = Job(tiny_bundle, tmp_path / "stopped", stopping, samples=samples)
    assert train_ranks(stopped) == [3, 3]
    assert "train.on_nonfinite=skip" in (stopped.root / "error_0.txt").read_text()
    resumed = Job(tiny_bundle, stopped.root, skipping, attempt=2, samples=samples)
    whole = Job(tiny_bundle, tmp_path / "whole", skipping, samples=samples)
    assert [train_ranks(job) for job in (resumed, whole)] == [[0, 0], [0, 0]]
    ends = [contents(step_folder(job, 4)) for job in (resumed, whole)]
    assert differences(*ends) == []


@pytest.mark.parametrize(
    ("tiles", "limits", "why"),
    [
        pytest.param(8, {"skip_in_a_row": 2}, "after 2 in a row", id="in-a-row"),
        pytest.param(16, {"skip_in_all": 2}, "after 2 that were skipped", id="in-all"),
    ],
)
def test_too_many_skipped_steps_stop_all_ranks(
    tiny_bundle: Path, tmp_path: Path, tiles: int, limits: dict[str, int], why: str
) -> None:
    samples = RandomTiles(n=tiles, poisoned=5)
    cfg = tiny_config(
        max_steps=50, epochs=50, on_nonfinite="skip", checkpoint_every_steps=1, **limits
    )
    job = Job(tiny_bundle, tmp_path, cfg, samples=samples)
    assert train_ranks(job) == [3, 3]

    plan = batches(SampleOrder(cfg.seed, tiles), Cursor(), cfg.global_batch)
    troubled = [step for step, (_, numbers) in zip(range(1, 9), plan, strict=False) if 5 in numbers]
    document = [
        json.loads(path.read_text()) for path in sorted(tmp_path.glob("trouble_step_*.json"))
    ]
    assert [report["step"] for report in document] == troubled[:3]
    assert [report["then"] for report in document] == ["skipped", "skipped", "stopped"]
    for rank in range(2):
        text = (tmp_path / f"error_{rank}.txt").read_text()
        assert text.startswith(f"NumericalError: the loss is nan at step {troubled[2]}, {why}")
    weights = read_weights(step_folder(job, troubled[2] - 1), average=True)
    assert all(tensor.isfinite().all() for tensor in weights.values())
