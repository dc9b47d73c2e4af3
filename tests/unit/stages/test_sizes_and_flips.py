"""What the tiles of a run decide: the size of images, and whether they may be flipped."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from evaluated_runs import captioned, seal
from image_sets_on_disk import shard_of, speckle_codes
from line_runs import make_tiny_model, seal_export, tiny_run

from hpc.errors import ConfigError
from hpc.job.pipeline import ensure_plan
from hpc.store.rundir import RunDir
from sarhpc.shards.images import decode_gray8
from sarhpc.shards.reader import read_shard
from sarhpc.stages.generate import make_corpus_shard
from sarhpc.stages.inputs.azimuth import require_flippable
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.train import check_settings
from sarhpc.tiling.config import ImportConfig


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model for 32 px tiles."""
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def trained_on(root: Path, model: Path, px: int) -> RunDir:
    run = tiny_run(root, model, ["generate.prompts=[a lake]", "generate.images=1"])
    path = shard_of(
        run.root / "data" / "samples" / "train" / "000000.tar",
        speckle_codes(0, 2, px=px),
        lambda n: {"split": "train", "caption": {"SHORT": "a lake"}},
    )
    seal(run, "caption", [(captioned(path, "a lake"), 2, {"split": "train"})])
    seal_export(run, model)
    return run


def planned(run: RunDir):
    return ensure_plan(run, stage_named(load_run_config(run), "generate"))


def test_images_have_the_size_of_the_tiles(tmp_path: Path, model: Path) -> None:
    run = trained_on(tmp_path / "run", model, 64)
    [task] = planned(run).shards
    made = make_corpus_shard(run, task)
    [sample] = read_shard(made.path)
    assert decode_gray8(sample.members["sar.png"]).shape == (64, 64)


def test_the_plan_of_tiles_of_the_models_size_says_nothing(tmp_path: Path, model: Path) -> None:
    [task] = planned(trained_on(tmp_path / "run", model, 32)).shards
    assert "size_px" not in task.inputs


def test_a_size_that_no_image_can_have_is_refused(tmp_path: Path, model: Path) -> None:
    run = trained_on(tmp_path / "run", model, 36)
    with pytest.raises(ConfigError, match=r"36 x 36 px.*multiples of 8.*generate.height_px"):
        planned(run)


def test_a_flip_along_azimuth_needs_to_know_where_azimuth_is(tmp_path: Path, model: Path) -> None:
    run = trained_on(tmp_path / "run", model, 32)
    config = load_run_config(run)
    flipped = dataclasses.replace(
        config, train=dataclasses.replace(config.train, azimuth_flip=True)
    )
    with pytest.raises(ConfigError, match=r"azimuth_flip.*imported\.range_direction"):
        require_flippable(run, "train.azimuth_flip")
    imported = dataclasses.replace(flipped, imported=ImportConfig(path="x"))
    with pytest.raises(ConfigError, match="azimuth_flip"):
        check_settings(imported)
    check_settings(dataclasses.replace(imported, train=config.train))
    check_settings(
        dataclasses.replace(imported, imported=ImportConfig("x", range_direction="-row"))
    )
