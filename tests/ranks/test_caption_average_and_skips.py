"""A caption fine-tuning that publishes averaged weights, and one that skips non-finite steps."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from caption_tiles import GROUNDS, SMALL, ground_training_of, write_grounds
from safetensors.torch import load_file
from test_caption_training import KILL, WEIGHTS, CaptionJob, caption_rank, rows
from test_skipped_steps import MOVED
from training_ranks import contents, differences, finish, start, step_folder

from sarhpc.captioning.captioners.blip import load_blip
from sarhpc.captioning.config import CaptionTrainConfig
from sarhpc.captioning.tuning.batches import CaptionBatch, collate
from sarhpc.captioning.tuning.datasets import open_set
from sarhpc.captioning.tuning.judging import chunks
from sarhpc.captioning.tuning.task import CaptionTask, caption_loss
from sarhpc.shards.loader import Cursor
from sarhpc.training.checkpoints.checkpointing import read_weights

pytestmark = pytest.mark.slow

STEPS = 5


@dataclass(frozen=True)
class PoisonedJob(CaptionJob):
    """A fine-tuning in which the loss of rank 0 is NaN at some steps (from 1)."""

    poisoned: tuple[int, ...] = ()


def poisoned_rank(job: PoisonedJob, rank: int, world: int, port: int) -> None:
    """A rank of such a job."""
    feed = CaptionTask.feed

    def poisoning(
        task: CaptionTask, cursor: Cursor, step: int
    ) -> Generator[tuple[Cursor, CaptionBatch]]:
        """Yield the batches, the factor of whose loss is NaN where the job says so."""
        for number, (after, batch) in enumerate(feed(task, cursor, step), step + 1):
            is_poisoned = rank == 0 and number in job.poisoned
            passes = [(one, float("nan") if is_poisoned else by) for one, by in batch.passes]
            yield after, CaptionBatch(passes, batch.all_keys)

    with mock.patch.object(CaptionTask, "feed", poisoning):
        caption_rank(job, rank, world, port)


@pytest.fixture(scope="module")
def cfg(tmp_path_factory: pytest.TempPathFactory) -> CaptionTrainConfig:
    """Five steps of eight of twelve images, of which every checkpoint is kept."""
    from sarhpc.captioning.captioners.build import new_blip
    from sarhpc.captioning.tuning.tokenizer import train_bert_tokenizer

    root = tmp_path_factory.mktemp("grounds")
    write_grounds(root, "train", 0, 100)
    write_grounds(root, "val", 1, 900)
    blip = new_blip(SMALL, train_bert_tokenizer(GROUNDS, SMALL.vocabulary))
    (root / "base").mkdir()
    blip.save(root / "base")
    return ground_training_of(
        root,
        base_model=str(root / "base"),
        steps=STEPS,
        lr=1e-3,
        warmup_steps=2,
        val_every=100,
        eval_images=0,
        log_every=1,
        readers=1,
        checkpoint_every_steps=1,
        keep_last=10,
    )


def fit_poisoned(job: PoisonedJob, world: int = 2) -> list[int | None]:
    """Exit codes of the ranks."""
    return finish(start(job, world, poisoned_rank))


def published(job: CaptionJob) -> dict[str, torch.Tensor]:
    return load_file(job.root / "blip" / WEIGHTS)


def averaged_by_hand(job: CaptionJob, decays: list[float]) -> dict[str, torch.Tensor]:
    """The average over the raw weights of all steps, from those of the base on, by name."""
    average = {
        name: tensor.clone()
        for name, tensor in load_file(Path(str(job.cfg.base_model)) / WEIGHTS).items()
    }
    for step, decay in enumerate(decays, 1):
        raw = read_weights(step_folder(job, step), average=False)
        for name, tensor in raw.items():
            known = name.removeprefix("model.")
            average[known] = decay * average[known] + (1 - decay) * tensor
    return average


def validation_loss(folder: Path, cfg: CaptionTrainConfig) -> float:
    """The loss of a published BLIP on all held-out images."""
    blip, images = load_blip(folder, "cpu"), open_set(cfg.val[0])
    total = 0.0
    for part in chunks(images, cfg.batch):
        batch = collate(blip, [(image.read(), image.captions[0]) for image in part], cfg)
        with torch.no_grad():
            total += caption_loss(blip, batch).item() * len(part)
    return total / len(images)


@pytest.mark.parametrize(
    ("world", "stage"), [(1, 0), (2, 2), pytest.param(2, 3, marks=pytest.mark.long)]
)
def test_the_average_over_all_steps_is_validated_and_published_whatever_ends_the_ranks(
    cfg: CaptionTrainConfig, tmp_path: Path, world: int, stage: int
) -> None:
    changed = replace(cfg, ema_decay=0.9, zero_stage=stage)
    whole = PoisonedJob(tmp_path / "whole", changed)
    assert fit_poisoned(whole, world) == [0] * world
    decays = [min(0.9, (1 + step) / (10 + step)) for step in range(STEPS)]
    assert [row["ema_decay"] for row in rows(whole).values()] == decays
    wanted, given = averaged_by_hand(whole, decays), published(whole)
    raw = read_weights(step_folder(whole, STEPS), average=False)
    assert given.keys() == wanted.keys()
    for name, tensor in given.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-6, atol=1e-8)
    apart = {
        name: float((given[name.removeprefix("model.")] - tensor).abs().max())
        for name, tensor in raw.items()
    }
    alike = [name for name, distance in apart.items() if distance < 1e-5]
    # A key's bias moves no softmax: its gradient is rounding alone.
    assert all(name.endswith("key.bias") for name in alike)
    [row] = rows(whole, "val_loss").values()
    assert row["val_loss"] == pytest.approx(validation_loss(whole.root / "blip", changed), rel=1e-5)

    faults = {world - 1: "training.after_step:4:kill"}
    killed = PoisonedJob(tmp_path / "killed", changed, faults=faults)
    assert KILL in fit_poisoned(killed, world)
    assert not (killed.root / "blip").exists()
    resumed = replace(killed, faults={}, attempt=2)
    assert fit_poisoned(resumed, world) == [0] * world
    both = [(job.root / "blip" / WEIGHTS).read_bytes() for job in (whole, resumed)]
    assert both[0] == both[1]


@pytest.mark.parametrize(("world", "stage"), [(1, 0), (2, 2)])
def test_a_skipped_step_moves_no_weight_no_moment_and_no_average(
    cfg: CaptionTrainConfig, tmp_path: Path, world: int, stage: int
) -> None:
    changed = replace(cfg, ema_decay=0.9, zero_stage=stage, on_nonfinite="skip", steps=4)
    job = PoisonedJob(tmp_path, changed, poisoned=(3,))
    assert fit_poisoned(job, world) == [0] * world
    before, after = contents(step_folder(job, 2)), contents(step_folder(job, 3))
    states: list[dict[str, Any]] = [before.pop("state"), after.pop("state")]
    assert [state.get("skipped") for state in states] == [None, {"steps": 1, "in_a_row": 1}]
    assert {place.split(":")[0].split("/")[-1] for place in differences(before, after)} <= MOVED
    [row] = rows(job, "trouble").values()
    assert (row["step"], row["trouble"], row["skipped"]) == (3, "the loss is nan", 1)
    assert {"loss", "grad_norm", "lr", "ema_decay"}.isdisjoint(row)
    assert list(rows(job)) == [1, 2, 4]
    assert rows(job)[4]["ema_decay"] == 3 / 12
    report = json.loads((tmp_path / "trouble_step_00000003.json").read_text())
    assert report["then"] == "skipped"
    assert [rank["loss"] == "nan" for rank in report["ranks"]] == [True, False][:world]
    assert all(tensor.isfinite().all() for tensor in published(job).values())


def test_too_many_skipped_steps_end_all_ranks_and_other_limits_let_them_go_on(
    cfg: CaptionTrainConfig, tmp_path: Path
) -> None:
    changed = replace(cfg, zero_stage=2, on_nonfinite="skip", skip_in_a_row=1)
    job = PoisonedJob(tmp_path, changed, poisoned=(2, 3))
    assert fit_poisoned(job) == [3, 3]
    for rank in range(2):
        text = (tmp_path / f"error_{rank}.txt").read_text()
        assert text.startswith("NumericalError: the loss is nan at step 3, after 1 in a row")
        assert "caption_train.skip_in_a_row" in text
    assert not (tmp_path / "blip").exists()
    resumed = replace(job, cfg=replace(changed, skip_in_a_row=2), attempt=2)
    assert fit_poisoned(resumed) == [0, 0]
    assert list(rows(resumed)) == [1, 4, 5]
