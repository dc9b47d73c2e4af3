"""Large scenes in a run: planned with their layout, announced, packaged, and refused early."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from line_runs import make_tiny_model, seal_export, tiny_run
from PIL import Image

from hpc.errors import ConfigError
from hpc.job.pipeline import ensure_plan
from hpc.store.rundir import RunDir
from sarhpc.generation.scenes import memory
from sarhpc.generation.scenes.layout import layout_digest
from sarhpc.generation.scenes.memory import SceneMemoryError
from sarhpc.shards.reader import read_shard
from sarhpc.stages.compare import plan_comparison
from sarhpc.stages.generate import GENERATE, make_corpus_shard, shard_bytes
from sarhpc.stages.inputs.scenes import scene_notes
from sarhpc.stages.number_ranges import out_of_range
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    path = tmp_path / "layout.png"
    Image.fromarray(np.uint8([[0, 1]])).save(path)
    return path


def run_of(root: Path, model: Path, *words: str) -> RunDir:
    run = tiny_run(root, model, ["generate.images=2", "generate.prompts=[a lake]", *words])
    seal_export(run, model)
    return run


def test_scenes_are_planned_with_the_digest_of_their_layout_and_made(
    tmp_path: Path, model: Path, layout: Path
) -> None:
    scene = f"generate.scene={{rows_px: 40, columns_px: 80, layout: {layout}, regions: [a town]}}"
    run = run_of(tmp_path / "run", model, scene)
    plan = ensure_plan(run, stage_named(load_run_config(run), "generate"))
    [task] = plan.shards
    made = make_corpus_shard(run, task)
    for sample in read_shard(made.path):
        facts = sample.meta["scene"]
        assert facts["layout_sha256"] == task.inputs["layout_sha256"]
        assert facts["regions"] == ["A SAR image of a town"]


def test_a_dry_run_tells_what_a_scene_takes(tmp_path: Path, model: Path) -> None:
    run = run_of(tmp_path / "run", model, "generate.scene={rows_px: 320, columns_px: 640}")
    config = load_run_config(run)
    [note] = scene_notes(config)
    assert "320 x 640 px takes the sampling of up to 231 images of 32 x 32 px" in note
    assert "GiB of the host's memory" in note
    assert note in GENERATE.notes(config, None)
    assert shard_bytes(config) == pytest.approx(2 * 320 * 640 * 3.15)


def test_a_scene_smaller_than_tiles_ends_the_planning(tmp_path: Path, model: Path) -> None:
    run = run_of(tmp_path / "run", model, "generate.scene={rows_px: 24, columns_px: 64}")
    with pytest.raises(ConfigError, match=r"scene is 24 px along an axis.*images of 32 px"):
        ensure_plan(run, stage_named(load_run_config(run), "generate"))


def test_a_scene_larger_than_memory_ends_the_stage_before_it_is_begun(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path / "run", model, "generate.scene={rows_px: 4096, columns_px: 4096}")
    plan = ensure_plan(run, stage_named(load_run_config(run), "generate"))
    monkeypatch.setattr(memory, "node_memory_bytes", lambda: 2**30)
    with pytest.raises(SceneMemoryError, match="4096 x 4096 px takes about"):
        make_corpus_shard(run, plan.shards[0])


def test_numbers_of_scenes_have_ranges(tmp_path: Path, model: Path) -> None:
    run = run_of(tmp_path / "run", model, "generate.scene={rows_px: 4, columns_px: 64}")
    config = load_run_config(run)
    assert out_of_range(config, ["generate"]) == ["generate.scene.rows_px=4: give at least 8"]


def test_runs_without_scenes_keep_their_fingerprint(tmp_path: Path, model: Path) -> None:
    run = run_of(tmp_path / "run", model)
    assert "scene" not in json.dumps(GENERATE.fingerprint(load_run_config(run)))
    plan = ensure_plan(run, stage_named(load_run_config(run), "generate"))
    assert not {"layout_sha256", "scene"} & plan.shards[0].inputs.keys()


def test_compared_models_are_planned_with_the_layout_too(
    tmp_path: Path, model: Path, layout: Path
) -> None:
    scene = f"generate.scene={{rows_px: 40, columns_px: 80, layout: {layout}, regions: [a town]}}"
    words = [scene, f"compare={{models: {{other: {model}}}, images: 1}}"]
    run = run_of(tmp_path / "run", model, *words)
    [task] = plan_comparison(run).shards
    assert task.inputs["layout_sha256"] == layout_digest(layout)
