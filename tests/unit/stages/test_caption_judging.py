"""A captioner that is to be judged on the run's own tiles, of which none is held out."""

from __future__ import annotations

from pathlib import Path

import pytest
from line_runs import tiny_run

from hpc.errors import DataError
from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now
from sarhpc.stages.caption_train import plan_caption_training

OWN = ["caption_train.base_model=null", "caption_train.judge={}"]


def tiled(run: RunDir, *splits: str) -> RunDir:
    """The run with a finished stage `tile` of one shard of twelve tiles for each of the splits."""
    plan = make_plan("tile", [{} for _ in splits])
    publish_plan(plan, run.plan_file("tile"))
    for number, split in enumerate(splits):
        run.ledger("tile").publish(
            Record(f"{number:06d}", plan.id, "tiles", 12, 1, "0" * 64, 0, "here", now(), now(),
                   0.0, {}, {"split": split})
        )  # fmt: skip
    run.ledger("tile").seal(plan)
    return run


def test_without_a_held_out_tile_the_training_does_not_begin(tmp_path: Path) -> None:
    run = tiled(tiny_run(tmp_path / "run", tmp_path / "model", OWN), "train", "train", "test")
    with pytest.raises(DataError) as caught:
        plan_caption_training(run)
    for word in ("caption_train.judge", "{'train': 24, 'test': 12}", "tile.split.fractions"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("words", "splits"),
    [
        (OWN, ("train", "val")),
        (OWN[:1], ("train",)),
        ([*OWN, "caption_train.train=[{path: /a}]", "caption_train.val=[{path: /b}]"], ("train",)),
    ],
)
def test_with_one_or_other_sets_or_no_judge_it_does(
    tmp_path: Path, words: list[str], splits: tuple[str, ...]
) -> None:
    run = tiled(tiny_run(tmp_path / "run", tmp_path / "model", words), *splits)
    assert len(plan_caption_training(run).shards) == 1
