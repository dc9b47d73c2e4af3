"""Controls in a run: what is refused before it begins, what the plan holds, what drawings make."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from line_runs import make_tiny_model, seal_export, tiny_run
from PIL import Image

import sarhpc
from hpc.config import fingerprint, loads
from hpc.errors import ConfigError, DataError, VerificationError
from hpc.job.pipeline import ensure_plan
from hpc.store.rundir import RunDir
from sarhpc.diffusion.bundle import load_bundle, save_bundle
from sarhpc.diffusion.control import new_controlnet
from sarhpc.diffusion.control_facts import publish_control_facts
from sarhpc.generation.controls.checks import check_controls
from sarhpc.shards.reader import read_shard
from sarhpc.stages.config import RunConfig
from sarhpc.stages.generate import GENERATE, make_corpus_shard
from sarhpc.stages.inputs.controls import planned_controls, require_planned_controls
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.settings import require_present
from sarhpc.stages.work import image_shards

DRAWN = "generate.prompts=[a lake]"


def draw(path: Path, rows: int = 32, columns: int = 32) -> Path:
    """A drawing: a dark line on white paper."""
    drawn = np.full((rows, columns), 255, np.uint8)
    drawn[10:13] = 0
    Image.fromarray(drawn).save(path)
    return path


def config(*words: str) -> RunConfig:
    return loads(RunConfig, "", list(words))


def present(tmp_path: Path, *words: str) -> None:
    require_present(RunDir(tmp_path), config(*words), ["generate"])


def test_a_single_steer_keeps_its_fingerprint() -> None:
    assert fingerprint(config("generate.steer={layer: edges, scale: 0.5}")) == fingerprint(
        config("generate.steer={layer: edges, scale: 0.5, start: 0.0, end: 1.0, further: []}")
    )
    assert fingerprint(config("generate.steer={}")) != fingerprint(
        config("generate.steer={end: 0.5}")
    )


def test_drawings_are_checked_before_anything_is_submitted(tmp_path: Path) -> None:
    square, wide = draw(tmp_path / "square.png"), draw(tmp_path / "wide.png", 32, 64)
    sized = ["tile.tile_px=32", DRAWN]
    present(tmp_path, f"generate.steer.sketch={square}", *sized)
    with pytest.raises(DataError, match=r"generate\.steer\.sketch: .*64 x 32 px"):
        present(tmp_path, f"generate.steer.sketch={wide}", *sized)
    present(tmp_path, f"generate.steer.sketch={wide}", *sized, "generate.width_px=64")
    with pytest.raises(ConfigError, match=r"generate\.steer\.sketch: no drawing /none\.svg"):
        present(tmp_path, "generate.steer.sketch=/none.svg", *sized)
    further = f"generate.steer.further=[{{sketch: {wide}, model: /none}}]"
    with pytest.raises(DataError, match=r"generate\.steer\.further\[0\]\.sketch: "):
        present(tmp_path, further, *sized)
    further = "generate.steer.further=[{layer: coarse, model: /none}]"
    with pytest.raises(DataError, match=r"further\[0\]\.model: no ControlNet in /none"):
        present(tmp_path, further, *sized)


@pytest.mark.parametrize(
    ("words", "contributes"),
    [
        (["generate.steps=2", "generate.steer.end=0.4"], False),
        (["generate.steps=2", "generate.steer.end=0.5"], True),
        (["generate.steps=2", "generate.steer.end=0.4", "generate.steer.scale=0"], True),
        (["generate.steps=2", "generate.steer.end=0.4", "generate.scheduler=heun"], True),
        (["generate.steps=4", "generate.steer.start=0.8"], False),
        (["generate.steps=10", "generate.steer.end=0.1", "generate.image_to_image={}"], False),
    ],
)
def test_a_part_of_the_denoising_without_a_step_is_refused(
    words: list[str], contributes: bool
) -> None:
    """diffusers then makes the images without the ControlNet."""
    generate = config("generate.steer={}", *words).generate
    assert generate is not None
    if contributes:
        check_controls(generate)
        return
    with pytest.raises(ConfigError, match=r"hold none of \d steps"):
        check_controls(generate)


def test_the_layer_that_is_trained_is_the_layer_that_steers() -> None:
    assert GENERATE.check is not None
    wrong = config("train.control.layer=segmentation", "generate.steer.layer=edges")
    with pytest.raises(ConfigError, match=r"steer\.layer=edges and train\.control\.layer=segm"):
        GENERATE.check(wrong)
    with pytest.raises(ConfigError, match=r"generate\.steer without train\.control"):
        GENERATE.check(config("generate.steer.layer=edges"))
    GENERATE.check(config("generate.steer.layer=edges", "generate.steer.model=/model"))
    GENERATE.check(config("train.control.layer=coarse", "generate.steer.layer=coarse"))


@pytest.mark.slow
def test_a_run_draws_what_its_sketches_say_and_notices_when_they_change(tmp_path: Path) -> None:
    base = make_tiny_model(tmp_path / "models")
    bundle = load_bundle(base)
    model = tmp_path / "steered"
    steered = dataclasses.replace(bundle, controlnet=new_controlnet(bundle.backbone, 0))
    save_bundle(steered, model)
    publish_control_facts(model, "edges")
    sketches = tmp_path / "sketches"
    sketches.mkdir()
    for name in ("a.png", "b.png"):
        draw(sketches / name)
    words = [f"generate.steer.sketch={sketches}", "train.control={}"]
    words += ["generate.images=4", "generate.steps=2"]
    run = tiny_run(tmp_path / "run", base, [*words, "generate.prompts=[a lake, a wood]"])
    seal_export(run, model)
    config = load_run_config(run)
    assert any("2 drawings are the layers of 4 images" in n for n in GENERATE.notes(config, None))
    first = ensure_plan(run, stage_named(config, "generate")).shards[0]
    assert first.inputs["layer_member"] == "edges.png"
    images = list(read_shard(make_corpus_shard(run, first).path))
    assert [image.meta["steered_by"]["drawing"] for image in images][:2] == ["a.png", "b.png"]
    assert "edges.png" in images[0].members, "the label of its pixels"
    steer = {"sketch": str(sketches)}
    drawn = sarhpc.generate(sarhpc.load_model(model, steps=2, steer=steer), ["a lake", "a wood"])
    assert [s.meta["steered_by"]["drawing"] for s in drawn.samples] == ["a.png", "b.png"]
    with pytest.raises(ConfigError, match="without a run there are no held-out tiles"):
        sarhpc.generate(sarhpc.load_model(model, steps=2, steer={}), "a lake")
    draw(sketches / "b.png", 64, 64)
    image_shards._indexed_layers.cache_clear()
    with pytest.raises(
        VerificationError, match=r"drawings of .* changed since the corpus was planned"
    ):
        make_corpus_shard(run, first)


def test_a_named_controlnet_that_changed_after_planning_is_noticed(tmp_path: Path) -> None:
    controlnet = tmp_path / "controlnet"
    controlnet.mkdir()
    (controlnet / "config.json").write_text("{}")
    generate = config(
        DRAWN,
        f"generate.steer.sketch={draw(tmp_path / 'a.png')}",
        f"generate.steer.model={tmp_path}",
    )
    planned = planned_controls(RunDir(tmp_path), generate)
    assert generate.generate is not None
    require_planned_controls(generate.generate, planned)
    (controlnet / "config.json").write_text("{ }")
    with pytest.raises(VerificationError, match=r"ControlNet of generate\.steer\.model=.* changed"):
        require_planned_controls(generate.generate, planned)
