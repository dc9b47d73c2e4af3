"""How far a fine-tuning of the captioner is, as its rows tell, and what enters its fingerprint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from line_runs import tiny_run

from hpc.config import loads, to_dict
from hpc.store.rundir import RunDir
from sarhpc.stages.caption_train import CAPTION_TRAIN, caption_training_progress, loop_config
from sarhpc.stages.config import RunConfig
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config

STEP = {"step": 7, "loss": 1.25, "samples_per_s": 64.0, "step_s": 0.25, "time": 1007.0}
SKIPPED = {"step": 8, "trouble": "the loss is nan", "skipped": 1, "step_s": 0.25, "time": 1.0}
SCORES = {"step": 0, "event": "before", "bleu_4": 0.125, "time": 1.0}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return tiny_run(tmp_path / "run", tmp_path / "model", ["caption_train.steps=20"])


def tell(run: RunDir, *rows: dict[str, Any]) -> None:
    folder = run.stage("caption-train")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("row", "done", "per_s", "says"),
    [
        (STEP, 7, 4.0, "loss 1.25, 64 images/s"),
        (STEP | {"skipped": 2}, 7, 4.0, "loss 1.25, skipped steps: 2, 64 images/s"),
        (SKIPPED, 8, 4.0, "the loss is nan, skipped steps: 1"),
        ({"step": 10, "val_loss": 0.5, "time": 1.0}, 10, None, "validation loss 0.5"),
        ({"step": 0, "event": "start", "time": 1.0}, 0, None, "start"),
        (SCORES, 0, None, "BLEU-4 0.125 before"),
    ],
    ids=["step", "after-skips", "skipped", "validation", "start", "scores"],
)  # fmt: skip
def test_the_newest_row_gives_the_progress(
    run: RunDir, row: dict[str, Any], done: int, per_s: float | None, says: str
) -> None:
    assert caption_training_progress(run) is None
    tell(run, {"step": 0, "event": "start", "time": 0.0}, row)
    progress = caption_training_progress(run)
    assert progress is not None
    assert (progress.done, progress.goal, progress.unit, progress.per_s) == (
        done,
        20,
        "steps",
        per_s,
    )
    assert progress.note == says


def test_rows_of_an_earlier_version_tell_nothing_and_break_nothing(run: RunDir) -> None:
    tell(run, {"event": "start", "train_images": 9}, {"step": 4, "loss": 1.0, "images_per_s": 9.0})
    assert caption_training_progress(run) is None
    stage = stage_named(load_run_config(run), "caption-train")
    assert stage.progress_times is not None
    assert list(stage.progress_times(run)) == []


def test_only_steps_that_a_checkpoint_holds_are_kept(run: RunDir) -> None:
    tell(run, *({**STEP, "step": step, "time": 1000.0 + step} for step in range(1, 7)))
    (run.stage("caption-train") / "checkpoints" / "step_00000004").mkdir(parents=True)
    stage = stage_named(load_run_config(run), "caption-train")
    assert stage.progress_times is not None
    assert list(stage.progress_times(run)) == [1001.0, 1002.0, 1003.0, 1004.0]


def test_a_run_from_before_it_was_a_training_of_many_ranks_keeps_its_fingerprint() -> None:
    config = loads(RunConfig, "{}", ["caption_train.steps=5"])
    plain = to_dict(config, transient=False)["caption_train"]
    for name in ("micro_batch", "zero_stage", "precision", "checkpoint_every_steps",
                 "checkpoint_every_s", "keep_last", "meteor", "ema_decay", "judge"):  # fmt: skip
        del plain[name]
    text = json.dumps({"caption_train": plain}, sort_keys=True)
    before = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert CAPTION_TRAIN.fingerprint(config) == before
    other = loads(RunConfig, "{}", ["caption_train.steps=5", "caption_train.zero_stage=2"])
    assert CAPTION_TRAIN.fingerprint(other) != before


@pytest.mark.parametrize(("given", "world", "size"), [(None, 1, 16), (None, 4, 4), (2, 4, 2)])
def test_a_pass_takes_the_part_of_a_rank_unless_told_else(
    given: int | None, world: int, size: int
) -> None:
    words = [
        "caption_train.batch=16",
        f"caption_train.micro_batch={'null' if given is None else 2}",
    ]
    settings = loads(RunConfig, "{}", words).caption_train
    assert settings is not None
    options = loop_config(settings, world)
    assert (options.global_batch, options.micro_batch, options.zero_stage) == (16, size, 0)
