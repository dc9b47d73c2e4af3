"""A folder that holds no model is told before anything is submitted, with what it lacks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from line_runs import tiny_run
from model_folders import captioner_layout, model_layout

from hpc.errors import ConfigError
from sarhpc.cli import main
from sarhpc.stages.inputs.model_layout import require_captioner, require_diffusers_model
from sarhpc.stages.inputs.paths import embedded_root


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def other_pipeline(folder: Path) -> None:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))


def damaged_index(folder: Path) -> None:
    (folder / "model_index.json").write_text("[1,")


def removed(name: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


@pytest.mark.parametrize(
    ("damage", "lacking"),
    [
        (empty, "it has no model_index.json that names a pipeline; give"),
        (damaged_index, "it has no model_index.json that names a pipeline; give"),
        (other_pipeline, r"StableDiffusionXLPipeline \(it is a FluxPipeline\)"),
        (removed("unet"), r"no unet/config\.json, unet/\*\.safetensors; give"),
        (removed("vae/config.json"), r"no vae/config\.json; give"),
        (removed("scheduler"), r"no scheduler/scheduler_config\.json; give"),
        (removed("tokenizer"), r"no tokenizer/tokenizer\.json or vocab\.json; give"),
        (removed("text_encoder/model.safetensors"), r"no text_encoder/\*\.safetensors; give"),
    ],
)
def test_what_a_diffusers_folder_lacks_is_named(
    damage: Callable[[Path], None], lacking: str, tmp_path: Path
) -> None:
    folder = model_layout(tmp_path / "model")
    require_diffusers_model("train.base_model", str(folder))
    damage(folder)
    with pytest.raises(ConfigError, match=lacking) as refused:
        require_diffusers_model("train.base_model", str(folder))
    assert str(refused.value).startswith(f"train.base_model={folder} holds no model")


@pytest.mark.parametrize("name", ["base", "sar"])
def test_models_that_ship_are_laid_out_so(name: str) -> None:
    require_diffusers_model("train.base_model", f"embedded:{name}")
    require_captioner("caption.model", "embedded:blip")
    assert (embedded_root() / name).is_dir()


def test_a_checkpoint_of_one_file_needs_its_shapes_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    with pytest.raises(ConfigError, match=r"its shapes, .*/model, has no model_index\.json"):
        require_diffusers_model("train.base_model", str(file), or_file=True)
    model_layout(tmp_path / "model")
    removed("unet/diffusion_pytorch_model.safetensors")(tmp_path / "model")
    require_diffusers_model("train.base_model", str(file), or_file=True)
    with pytest.raises(ConfigError, match="is a file; give a diffusers folder"):
        require_diffusers_model("compare.models.other", str(file))


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"]
)
def test_what_a_captioner_lacks_is_named(name: str, tmp_path: Path) -> None:
    folder = captioner_layout(tmp_path / "blip")
    require_captioner("caption.model", str(folder))
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=rf"it has no (\*|{name.partition('.')[0]})\."):
        require_captioner("caption.model", str(folder))


@pytest.mark.parametrize("flags", [["--dry-run"], []])
def test_folders_without_models_are_refused_by_a_start_and_a_dry_run(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    words = [f"compare.models={{other: {nothing}}}", f"caption.model={nothing}",
             "caption.captioner=blip", f"caption_train={{base_model: {nothing}}}"]  # fmt: skip
    run = tiny_run(tmp_path / "run", nothing, words)
    assert main(["run", str(run.root), "--executor", "local", *flags]) == 2
    err = capsys.readouterr().err
    for key in ("train.base_model", "compare.models.other", "caption.model",
                "caption_train.base_model"):  # fmt: skip
        assert f"{key}={nothing} holds no model that can be used" in err
    assert not run.begun
