"""A training goes on with another number of ranks: the same batches, the same numbers resharded."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from training_ranks import (
    Job,
    contents,
    differences,
    enter_rank,
    finish,
    start,
    start_engine,
    step_folder,
    tiny_config,
    train_ranks,
)

from sarhpc.training.checkpoints.checkpointing import read_weights


def losses(job: Job) -> dict[int, float]:
    rows = map(json.loads, (job.root / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "precision"), [(2, "fp32"), (3, "bf16")])
def test_ranks_come_and_go_without_a_jump(
    tiny_bundle: Path, tmp_path: Path, stage: int, precision: str
) -> None:
    cfg = tiny_config(zero_stage=stage, precision=precision, epochs=1000, log_every_steps=1)
    whole = Job(tiny_bundle, tmp_path / "whole", cfg)
    assert train_ranks(whole, 2) == [0, 0]
    for turn, world in enumerate((2, 1, 2), 1):
        part = dataclasses.replace(cfg, max_steps=2 * turn)
        job = Job(tiny_bundle, tmp_path / "turns", part, attempt=turn)
        assert train_ranks(job, world) == [0] * world
    cursors = [contents(step_folder(each, 6))["state"]["cursor"] for each in (whole, job)]
    assert cursors[0] == cursors[1]
    # What may differ is the order of sums. A moment or a step count that got lost would move
    # every weight by about its rate, 1e-3.
    assert losses(job) == pytest.approx(losses(whole), rel=1e-5 if precision == "fp32" else 1e-2)
    one, other = (read_weights(step_folder(each, 6), average=True) for each in (whole, job))
    apart = [float((one[name] - other[name]).abs().mean()) for name in one]
    assert max(apart) < (1e-6 if precision == "fp32" else 1e-4)


def cut_anew(job: Job, rank: int, world: int, port: int) -> None:
    """A rank that takes up the checkpoint `job.base.parent / "checkpoint"` and saves it again."""
    enter_rank(job, rank, world, port)
    from sarhpc.training.checkpoints import checkpointing
    from sarhpc.training.denoising.model import Denoiser
    from sarhpc.training.denoising.start import load_base
    from sarhpc.training.ema import Ema
    from sarhpc.training.ranks import join, leave

    ranks = join(1, deterministic=True, seed=0)
    bundle = load_base(job.cfg, job.base)
    model = Denoiser(bundle.family, bundle.models)
    engine, partition = start_engine(job.cfg, model, ranks, 1)
    average = Ema(partition)
    origin = job.root.parent / f"from_{job.root.name}"
    saved_world = len(list((origin / "layout").iterdir()))
    partition = checkpointing.load(origin, engine, average, saved_world)
    checkpointing.save(job.root, engine, partition, average)
    leave()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "precision"),
    [(1, "bf16"), (2, "fp32"), pytest.param(3, "bf16", marks=pytest.mark.long)],
)
def test_no_bit_is_lost_when_a_checkpoint_is_cut_anew(
    tiny_bundle: Path, tmp_path: Path, stage: int, precision: str
) -> None:
    cfg = tiny_config(max_steps=2, zero_stage=stage, precision=precision)
    two = Job(tiny_bundle, tmp_path / "train", cfg)
    assert train_ranks(two, 2) == [0, 0]
    (tmp_path / "from_three").symlink_to(step_folder(two, 2))
    (tmp_path / "from_again").symlink_to(tmp_path / "three")
    for name, world in (("three", 3), ("again", 2)):
        job = Job(tiny_bundle, tmp_path / name, cfg)
        assert finish(start(job, world, cut_anew)) == [0] * world
    manifest = step_folder(two, 2) / "MANIFEST.json"
    (tmp_path / "again" / "MANIFEST.json").write_bytes(manifest.read_bytes())
    before, after = contents(step_folder(two, 2)), contents(tmp_path / "again")
    # The job that cut it anew had a batch and rates of its own.
    expected = ("/ds_config/", "/param_groups/")
    apart = [one for one in differences(before, after) if not any(e in one for e in expected)]
    assert apart == []
