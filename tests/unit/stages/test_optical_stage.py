"""The stage `optical`: tiles that stand gain images, and captioning sees them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from line_runs import make_tiny_model, tiny_run
from shard_checks import validate_shard

from hpc.errors import ConfigError, DataError
from hpc.job.elements import run_element
from hpc.job.pipeline import run_stage
from hpc.publish import digest_file
from hpc.store.rundir import RunDir
from sarhpc.shards.reader import read_shard
from sarhpc.stages.caption import plan_caption_shards
from sarhpc.stages.caption_train import plan_caption_training
from sarhpc.stages.optical import make_optical_shard, plan_optical_shards, read_tiles
from sarhpc.stages.registry import line_of_stages, stage_named
from sarhpc.stages.run_config import load_run_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory, model: Path) -> RunDir:
    """A run whose tiles stand, and whose archive has optical images of the same ground."""
    run = tiny_run(tmp_path_factory.mktemp("tiled") / "run", model, ["optical.min_coverage=0.8"])
    for name in ("simulate", "tile"):
        run_stage(run, stage_named(load_run_config(run), name))
    return run


def test_the_line_gives_every_tile_an_image_and_its_captions_a_place_to_look(
    tiled: RunDir,
) -> None:
    config = load_run_config(tiled)
    names = [stage.name for stage in line_of_stages(config)]
    assert names[1:4] == ["tile", "optical", "caption"]
    assert stage_named(config, "caption").needs == ("tile", "optical")
    run_stage(tiled, stage_named(config, "optical"))
    records = tiled.ledger("optical").records()
    assert sum(record.samples for record in records.values()) > 0
    assert all(record.rejected == {} for record in records.values())
    for record in records.values():
        assert digest_file(Path(record.path)).sha256 == record.sha256
    for task in plan_caption_shards(tiled).shards:
        assert task.inputs["optical_sha256"] == records[task.id].sha256
        for sample in read_tiles(tiled, task.inputs):
            [part] = sample.meta["optic_images"]
            assert part["id"] == sample.meta["scene_id"]
            assert part["share"] >= 0.8
    run_stage(tiled, stage_named(config, "caption"))
    for shard in (tiled.root / "data" / "samples").rglob("*.tar"):
        assert validate_shard(shard) == sum("optic.png" in s.members for s in read_shard(shard))


def test_the_image_of_a_tile_is_the_one_that_was_cut_with_it(tiled: RunDir) -> None:
    """The same asset through both ways: nothing is shifted, turned or mirrored."""
    plan = plan_optical_shards(tiled)
    made = make_optical_shard(tiled, plan.shards[0])
    paired = {sample.key: sample for sample in read_shard(made.path)}
    for tile in read_shard(tiled.located(plan.shards[0].inputs["tiles"])):
        assert paired[tile.key].members["optic.png"] == tile.members["optic.png"]


def test_elements_of_a_job_array_divide_its_shards(tmp_path: Path, tiled: RunDir) -> None:
    run = RunDir(shutil.copytree(tiled.root, tmp_path / "run"))
    shutil.rmtree(run.stage("optical"), ignore_errors=True)
    stage = stage_named(load_run_config(run), "optical")
    for element in (0, 1):
        run_element(
            run, stage, element, lambda plan, first=element: [s.id for s in plan.shards][first::2]
        )
    assert run.ledger("optical").sealed
    assert len(run.ledger("optical").records()) == len(tiled.ledger("tile").records()) > 1


def test_a_list_of_images_that_changed_is_not_used(tiled: RunDir) -> None:
    plan = plan_optical_shards(tiled)
    file = tiled.stage("optical") / "images.json"
    whole = file.read_text()
    try:
        document = json.loads(whole)
        document["images"].pop()
        file.write_text(json.dumps(document))
        os.utime(file)
        from sarhpc.stages.optical import _index

        _index.cache_clear()
        with pytest.raises(DataError, match="not the list this stage was planned with"):
            make_optical_shard(tiled, plan.shards[0])
    finally:
        file.write_text(whole)


def test_what_contradicts_the_stage_is_refused(tmp_path: Path, model: Path) -> None:
    cut = tiny_run(tmp_path / "cut", model, ["optical={}", "tile.conditions=[optical]"])
    with pytest.raises(ConfigError, match=r"tile\.conditions=\[optical\]"):
        plan_optical_shards(cut)
    learns = tiny_run(tmp_path / "learns", model, ["optical={}", "caption_train.steps=1"])
    with pytest.raises(ConfigError, match="caption-train on the run's own tiles"):
        plan_caption_training(learns)
    (tmp_path / "empty").mkdir()
    nothing = tiny_run(tmp_path / "nothing", model, [f"optical.uri={tmp_path / 'empty'}"])
    with pytest.raises(DataError, match="no optical images"):
        plan_optical_shards(nothing)
