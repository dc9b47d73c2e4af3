"""A captioner judged on held-out captions: a checkpoint with each, and the best is published."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from caption_tiles import SMALL, ground_training_of, write_grounds
from caption_training import STOP
from line_runs import stage_log, start_ranks, tiny_run
from numpy.typing import NDArray
from safetensors.torch import load_file
from test_caption_average_and_skips import validation_loss
from test_caption_training import (
    KILL,
    WEIGHTS,
    CaptionJob,
    caption_rank,
    events,
    fit_ranks,
    rows,
    sealed_tiles,
)
from test_judged_training import saved
from training_ranks import contents, differences, finish, start, step_folder

from hpc.store.tree import digest_tree
from sarhpc.captioning.captioners.writer import WritingCaptioner
from sarhpc.captioning.config import CaptionJudgeConfig, CaptionTrainConfig
from sarhpc.captioning.tuning.finetune import REPORT
from sarhpc.training.checkpoints.checkpointing import read_weights
from sarhpc.training.judged import FOLDER, best_first, read_judged

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cfg(tmp_path_factory: pytest.TempPathFactory) -> CaptionTrainConfig:
    """Eight steps at a rate that rises until the model unlearns; judged by its loss."""
    root = tmp_path_factory.mktemp("grounds")
    write_grounds(root, "train", 0, 100)
    write_grounds(root, "val", 1, 900)
    return ground_training_of(
        root,
        base_model=None,
        steps=8,
        lr=1.0,
        warmup_steps=100,
        zero_stage=2,
        val_every=2,
        eval_images=0,
        log_every=1,
        readers=1,
        checkpoint_every_s=1e9,
        judge=CaptionJudgeConfig(),
    )


@pytest.fixture(scope="module")
def whole(cfg: CaptionTrainConfig, tmp_path_factory: pytest.TempPathFactory) -> CaptionJob:
    """Two ranks that nothing disturbs."""
    job = CaptionJob(tmp_path_factory.mktemp("whole"), cfg)
    assert fit_ranks(job) == [0, 0]
    return job


def is_published(job: CaptionJob, step: int, *, average: bool) -> bool:
    """Whether the weights of that checkpoint are the published ones, to the bit."""
    published = load_file(job.root / "blip" / WEIGHTS)
    learnt = read_weights(step_folder(job, step), average=average)
    return all(torch.equal(published[name.removeprefix("model.")], learnt[name]) for name in learnt)


def stopped_rank(job: CaptionJob, rank: int, world: int, port: int) -> None:
    """A rank that is asked to stop when it first writes captions."""
    write = WritingCaptioner.caption

    def stopping(writer: WritingCaptioner, images: Sequence[NDArray[np.uint8]]) -> list[str]:
        (job.root / STOP).touch()
        return write(writer, images)

    with mock.patch.object(WritingCaptioner, "caption", stopping):
        caption_rank(job, rank, world, port)


def test_the_checkpoint_of_the_lowest_loss_is_kept_and_published(whole: CaptionJob) -> None:
    judged = {row["step"]: row for row in read_judged(whole.root / FOLDER)}
    measured = {step: row["val_loss"] for step, row in rows(whole, "val_loss").items()}
    assert {step: row["score"] for step, row in judged.items()} == measured
    assert list(judged) == [2, 4, 6, 8]
    assert [row["epoch"] for row in judged.values()] == [1, 2, 4, 5]
    best = min(measured, key=lambda step: measured[step])
    assert best < 6, "it is neither of the newest two, which are kept anyway"
    assert saved(whole) == {f"step_{step:08d}" for step in (best, 6, 8)}

    folder = whole.root / "blip"
    assert is_published(whole, best, average=False)
    assert validation_loss(folder, whole.cfg) == pytest.approx(measured[best], rel=1e-5)
    report = json.loads((folder / REPORT).read_text())
    assert report["chosen"] == {"step": best, "by": "loss"}


def test_a_kill_between_a_judgement_and_its_checkpoint_doubles_no_row_and_moves_no_bit(
    whole: CaptionJob, tmp_path: Path
) -> None:
    killed = CaptionJob(tmp_path, whole.cfg, faults={0: "checkpoint.before_rename:2:kill"})
    assert fit_ranks(killed)[0] == KILL
    assert best_first(killed.root / FOLDER) == [4, 2]
    assert saved(killed) == {"step_00000002"}
    resumed = replace(killed, faults={}, attempt=2)
    assert fit_ranks(resumed) == [0, 0]
    assert read_judged(resumed.root / FOLDER) == read_judged(whole.root / FOLDER)
    validated = [
        {step: row["val_loss"] for step, row in rows(job, "val_loss").items()}
        for job in (whole, resumed)
    ]
    assert validated[0] == validated[1]
    assert events(resumed) == ["start", "before", "after"]
    assert saved(resumed) == saved(whole)
    for step in (4, 8):
        ends = [contents(step_folder(job, step)) for job in (whole, resumed)]
        assert differences(*ends) == []
    both = [(job.root / "blip" / WEIGHTS).read_bytes() for job in (whole, resumed)]
    assert both[0] == both[1]


def test_with_the_last_chosen_all_are_judged_and_the_last_is_published(
    cfg: CaptionTrainConfig, tmp_path: Path
) -> None:
    judge = CaptionJudgeConfig(by="rouge_l", images=5, choose="last")
    changed = replace(cfg, zero_stage=0, ema_decay=0.5, steps=6, judge=judge)
    job = CaptionJob(tmp_path, changed)
    # A stop while captions are judged: the step is saved, and judged after the resume.
    assert finish(start(job, 1, stopped_rank)) == [0]
    assert saved(job) == {"step_00000002"}
    assert read_judged(job.root / FOLDER) == []
    (job.root / STOP).unlink()
    assert fit_ranks(replace(job, attempt=2), world=1) == [0]
    judged = read_judged(job.root / FOLDER)
    measured = rows(job, "val_rouge_l")
    assert [row["step"] for row in judged] == list(measured) == [2, 4, 6]
    assert [-row["score"] for row in judged] == [row["val_rouge_l"] for row in measured.values()]
    assert saved(job) == {"step_00000004", "step_00000006"}
    assert is_published(job, 6, average=True)
    assert "chosen" not in json.loads((job.root / "blip" / REPORT).read_text())


def test_the_best_by_a_metric_of_captions_is_published_as_averaged(
    cfg: CaptionTrainConfig, tmp_path: Path
) -> None:
    judge = CaptionJudgeConfig(by="bleu_1")
    job = CaptionJob(tmp_path, replace(cfg, zero_stage=1, ema_decay=0.5, judge=judge))
    assert fit_ranks(job) == [0, 0]
    scores = {step: row["val_bleu_1"] for step, row in rows(job, "val_bleu_1").items()}
    best = max(scores, key=lambda step: (scores[step], -step))
    assert best_first(job.root / FOLDER)[0] == best < 8
    assert is_published(job, best, average=True)


def test_a_best_checkpoint_that_is_damaged_is_not_published(
    whole: CaptionJob, tmp_path: Path
) -> None:
    job = CaptionJob(tmp_path / "copy", whole.cfg, attempt=2)
    shutil.copytree(whole.root, job.root)
    shutil.rmtree(job.root / "blip")
    best = step_folder(job, best_first(job.root / FOLDER)[0])
    for path in best.rglob("*.pt"):
        flip_byte(path)
    assert fit_ranks(job) == [4, 4]
    message = (job.root / "error_1.txt").read_text()
    assert message.startswith(f"VerificationError: {best} was judged the best and is not published")
    assert not (job.root / "blip").exists()
    shutil.rmtree(best)
    assert fit_ranks(replace(job, attempt=3)) == [0, 0]
    assert json.loads((job.root / "blip" / REPORT).read_text())["chosen"]["step"] == 6


def test_the_stage_publishes_the_best_checkpoint_that_its_run_signed(
    cfg: CaptionTrainConfig, tmp_path: Path
) -> None:
    small = [f"caption_train.new.{name}={value}" for name, value in asdict(SMALL).items()]
    names = ("steps", "batch", "lr", "warmup_steps", "val_every", "eval_images", "max_tokens",
             "device", "eval_beams", "checkpoint_every_s")  # fmt: skip
    words = [*small, *(f"caption_train.{name}={getattr(cfg, name)}" for name in names)]
    words += [f"caption_train.{split}=[{{path: {cfg.train[0].path}, split: {split}}}]"
              for split in ("train", "val")]  # fmt: skip
    words += ["caption_train.base_model=null", "caption_train.judge={}", "cluster.ranks=1"]
    run = tiny_run(tmp_path / "run", tmp_path / "model", words)
    sealed_tiles(run, Path(cfg.train[0].path) / "train" / "000000.tar")
    [rank] = start_ranks(run, "caption-train", 1)
    assert rank.wait(200) == 0, stage_log(run, "caption-train")
    folder = run.stage("caption-train")
    best = best_first(folder / FOLDER)[0]
    assert best < 6
    kept = {path.name for path in (folder / "checkpoints").glob("step_*")}
    assert kept == {f"step_{step:08d}" for step in (best, 6, 8)}
    published = load_file(folder / "model" / WEIGHTS)
    checkpoint = folder / "checkpoints" / f"step_{best:08d}"
    learnt = read_weights(checkpoint, average=False)
    assert all(torch.equal(published[name.removeprefix("model.")], learnt[name]) for name in learnt)
    [record] = run.ledger("caption-train").records().values()
    assert record.sha256 == digest_tree(folder / "model").sha256


def flip_byte(path: Path) -> None:
    """Change one byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
