"""What a gate on the class of images cannot work with, told at planning or before it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from class_gates import by_clip, gated, samples_of
from gated_runs import image_run
from line_runs import TINY, make_tiny_model
from procedural_tiles import procedural_shard
from safetensors.numpy import load_file, save_file

from hpc.config import loads
from hpc.errors import ConfigError, VerificationError
from hpc.job.pipeline import ensure_plan
from hpc.store.rundir import RunDir
from sarhpc.shards.sample import encode_json
from sarhpc.shards.writer import write_shard
from sarhpc.stages.config import RunConfig
from sarhpc.stages.generate import GENERATE, make_corpus_shard, plan_corpus
from sarhpc.stages.inputs.class_gate import loaded_clip
from sarhpc.stages.inputs.gate_limits import planned_gate
from sarhpc.stages.inputs.paths import model_folder
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.settings import require_present, require_settings


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a shard of radar tiles whose captions are true."""
    root = tmp_path_factory.mktemp("captioned")
    procedural_shard(root / "000000.tar", 987, scenes=5, stride_px=64)
    return root


def refused(run: RunDir) -> str:
    with pytest.raises(ConfigError) as raised:
        plan_corpus(run)
    assert not run.plan_file("generate").exists()
    return str(raised.value)


def unable(folder: Path) -> Path:
    """The embedded CLIP with a projection of random numbers."""
    shutil.copytree(model_folder("embedded:clip"), folder)
    weights = load_file(folder / "model.safetensors")
    shape = weights["visual_projection.weight"].shape
    weights["visual_projection.weight"] = np.random.default_rng(0).normal(size=shape).astype("f")
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.slow
def test_classes_that_cannot_be_told_are_refused_at_planning(
    tmp_path: Path, model: Path, captioned: Path
) -> None:
    weak = by_clip(captioned, str(unable(tmp_path / "clip")))
    words = refused(gated(tmp_path / "a", model, captioned, weak))
    assert "does not tell the classes of" in words
    assert "chance 0.25" in words
    assert "set generate.gate.other_class=null" in words
    words = refused(gated(tmp_path / "b", model, captioned, by_clip(captioned, more=", tiles: 20")))
    assert "of 20 real tiles captions name water" in words
    assert "generate.gate.other_class.tiles" in words
    words = refused(
        gated(tmp_path / "c", model, captioned, by_clip(captioned), "generate.prompts=[a quay]")
    )
    assert "no prompt names one of the classes field, forest, town, water" in words
    assert "a quay" in words
    large = ("generate.height_px=256", "generate.width_px=256")
    words = refused(gated(tmp_path / "d", model, captioned, by_clip(captioned), *large))
    assert "images of 256 x 256 px are larger than real tiles of 128 x 128 px" in words
    (tmp_path / "empty").mkdir()
    words = refused(gated(tmp_path / "e", model, captioned, by_clip(tmp_path / "empty")))
    assert "no shards below generate.gate.other_class.shards" in words
    one = [
        sample.with_members(meta__json=encode_json({**sample.meta, "scene_id": "one"}))
        for sample in samples_of(captioned).values()
    ]
    write_shard(tmp_path / "one/000000.tar", one)
    words = refused(gated(tmp_path / "f", model, captioned, by_clip(tmp_path / "one")))
    assert "of 1 flight lines or scenes, and 4 are needed" in words


@pytest.mark.slow
def test_a_model_that_was_changed_or_lost_since_the_plan_is_refused(
    tmp_path: Path, model: Path, captioned: Path
) -> None:
    clip = tmp_path / "clip"
    shutil.copytree(model_folder("embedded:clip"), clip)
    run = gated(tmp_path / "run", model, captioned, by_clip(captioned, str(clip)))
    plan = ensure_plan(run, stage_named(load_run_config(run), "generate"))
    planned = planned_gate(run, plan.shards[0].inputs["gate_sha256"]).classes
    assert planned is not None
    assert min(one.tiles for one in planned.limits.values()) >= 9
    loaded_clip.cache_clear()
    shutil.rmtree(clip)
    unable(clip)
    with pytest.raises(VerificationError, match="another CLIP than"):
        make_corpus_shard(run, plan.shards[0])
    shutil.rmtree(clip)
    with pytest.raises(VerificationError, match="restore it"):
        make_corpus_shard(run, plan.shards[0])


def config_of(*words: str) -> RunConfig:
    return loads(RunConfig, TINY, ["train.base_model=/m", "tile.tile_px=64", *words])


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        ({"model": "null"}, "generate.gate.other_class.model: name the CLIP"),
        ({"model": "'embedded:clip'", "tiles": "0"}, "other_class.tiles"),
        ({"model": "'embedded:clip'", "false_rejects": "0"}, "other_class.false_rejects"),
        ({"model": "'embedded:clip'", "false_rejects": "1"}, "other_class.false_rejects"),
        ({"model": "'embedded:clip'", "shards": "/nowhere"}, "shards=/nowhere is no folder"),
        ({"model": "'embedded:clip'", "classes": "{water: [a lake]}"}, "two classes or more"),
        ({"model": "'embedded:clip'", "classes": "{water: [a lake], town: []}"}, "two classes"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_submitted(
    words: dict[str, str], reported: str
) -> None:
    inner = ", ".join(f"{key}: {value}" for key, value in words.items())
    config = config_of(f"generate.gate={{other_class: {{{inner}}}}}")
    with pytest.raises(ConfigError, match=reported):
        require_settings(config, ["generate"], lambda _: 1)


@pytest.mark.slow
@pytest.mark.parametrize("named", ["embedded:blip", "embedded:clap", "/nowhere"])
def test_what_is_no_clip_is_refused_before_anything_is_submitted(
    named: str, tmp_path: Path, model: Path
) -> None:
    config = config_of(f"generate.gate={{other_class: {{model: '{named}'}}}}")
    with pytest.raises(ConfigError, match=named.removeprefix("embedded:")) as raised:
        require_present(image_run(tmp_path / "run", model), config, ["generate"])
    assert raised.value.exit_code == 2


def test_a_corpus_waits_for_the_clip_that_judges_it() -> None:
    words = ["clip_train={}", "generate.gate={other_class: {}}"]
    assert stage_named(config_of(*words), "generate").needs == ("clip-train", "export")
    assert GENERATE.models(config_of(*words)) == []
    named = ["clip_train={}", "generate.gate={other_class: {model: 'embedded:clip'}}"]
    assert stage_named(config_of(*named), "generate").needs == ("export",)
    assert GENERATE.models(config_of(*named)) == ["embedded:clip"]
