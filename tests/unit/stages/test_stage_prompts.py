from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest

from hpc.store.ledger import Record
from hpc.store.plan import make_plan
from hpc.store.rundir import RunDir, create_run, now
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.writer import write_shard
from sarhpc.stages.inputs.prompts import (
    KnownPrompt,
    asked_class,
    evenly_by_class,
    held_out_splits,
    known_prompts,
    sample_shards,
)


def known(key: int, caption: str, land_cover: str | None) -> KnownPrompt:
    return KnownPrompt(f"{key:011d}", caption, land_cover)


def test_any_part_of_the_prompts_is_balanced() -> None:
    many = [known(n, f"a field {n}", "field") for n in range(9)]
    few = [known(20 + n, f"a lake {n}", "water") for n in range(4)]
    town = [known(30 + n, f"a town {n}", "town") for n in range(4)]
    prompts = evenly_by_class([*many, *few, *town])
    assert len(prompts) == 27, "the smaller classes begin again"
    for length in range(3, 28, 3):
        assert set(Counter(p.land_cover for p in prompts[:length]).values()) == {length // 3}


def test_a_caption_counts_once_and_order_of_reading_does_not_matter() -> None:
    given = [
        known(1, "a lake", "water"),
        known(2, "a lake", "water"),
        known(3, "a wood", "forest"),
        known(4, "mist", None),
        known(5, "a pond", "water"),
    ]
    prompts = evenly_by_class(given)
    assert [p.caption for p in prompts] == ["a wood", "a lake", "a wood", "a pond", "mist"]
    assert prompts[1].key.endswith("1"), "the first tile of a caption stands for it"
    distinct = [given[0], *given[2:]]
    for order in itertools.permutations(distinct):
        assert evenly_by_class(order) == prompts
    assert evenly_by_class([]) == []


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return create_run(tmp_path / "run", "a: 1\n", "f00d")


def caption_shards(run: RunDir, samples: dict[str, int]) -> None:
    """A sealed caption stage with one shard a split."""
    plan = make_plan("caption", [{}] * len(samples))
    for task, (split, count) in zip(plan.shards, samples.items(), strict=True):
        path = run.root / "data" / "samples" / split / f"{task.id}.tar"
        path.parent.mkdir(parents=True)
        made = [sample(task.number, index) for index in range(count)]
        summary = write_shard(path, made)
        run.ledger("caption").publish(
            Record(task.id, plan.id, str(path), count, summary.bytes, summary.sha256, 0, "h",
                   now(), now(), detail={"split": split})
        )  # fmt: skip
    run.ledger("caption").seal(plan)


def sample(shard: int, index: int) -> Sample:
    meta = {
        "caption": {"SHORT": f"a lake {shard} {index}"},
        "truth": {"class_fractions": {"water": 0.9, "forest": 0.1}},
    }
    return Sample(sample_key(shard, index), {"meta.json": encode_json(meta)})


def test_held_out_splits_are_those_with_samples(run: RunDir) -> None:
    caption_shards(run, {"train": 2, "val": 1, "test": 0})
    assert held_out_splits(run, ["test", "val"]) == ["val"]
    assert [path.parent.name for path in sample_shards(run, ["val", "test"])] == ["val"]


def test_without_held_out_samples_those_of_training_stand_in(run: RunDir) -> None:
    caption_shards(run, {"train": 2, "val": 0})
    assert held_out_splits(run, ["val", "test"]) == ["train"]
    prompts = list(known_prompts(run, ["train"]))
    assert [p.caption for p in prompts] == ["a lake 0 0", "a lake 0 1"]
    assert {p.land_cover for p in prompts} == {"water"}


def test_an_image_was_asked_to_show_the_land_cover_of_its_label() -> None:
    assert asked_class({"labels": {"class": "town"}}) == "town"
    assert asked_class({"labels": {"class": "vineyard"}}) == "field"
    for meta in ({}, {"labels": None}, {"labels": {"class": 3}}, {"labels": {"site": "x"}}):
        assert asked_class(meta) is None
