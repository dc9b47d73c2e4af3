"""The line with stored latents and a ControlNet: the model and the corpus that come out of it."""

from __future__ import annotations

import hashlib
import json

import pytest
from line_runs import make_tiny_model, stage_log, start_stage, tiny_run

from hpc.store.rundir import RunDir
from sarhpc.shards.reader import read_shard
from sarhpc.shards.schema import validate_sample
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config

pytestmark = pytest.mark.slow

ZERO = "controlnet_down_blocks"
"""The convolutions that are zero in an untrained ControlNet."""


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A finished run whose ControlNet learnt the edges of its tiles, from latents made once."""
    words = ["encode={threads: 1}", "tile.conditions=[edges]"]
    words += ["train.control={layer: edges, lr: 0.001}", "train.validation_every_steps=0"]
    words += ["generate.images=4", "generate.steer={layer: edges}", "cluster.ranks=1"]
    folder = tmp_path_factory.mktemp("steered")
    run = tiny_run(folder / "run", make_tiny_model(folder), words)
    for stage in line_of_stages(load_run_config(run)):
        assert start_stage(run, stage.name).wait(200) == 0, stage_log(run, stage.name)
    return run


def test_the_latents_are_stored_and_only_the_controlnet_moves(steered: RunDir) -> None:
    from diffusers import ControlNetModel, StableDiffusionPipeline

    rows = [json.loads(line) for line in (steered.root / "train" / "metrics.jsonl").open()]
    assert [row["step"] for row in rows][-1] == 4
    stored = list((steered.root / "data" / "latents").rglob("*.tar"))
    assert stored
    exported = steered.root / "export" / "model"
    control = ControlNetModel.from_pretrained(exported / "controlnet")
    zero = [weight for name, weight in control.state_dict().items() if name.startswith(ZERO)]
    assert any(weight.any() for weight in zero), "its zero convolutions have moved"
    before = StableDiffusionPipeline.from_pretrained(steered.root.parent / "base").unet
    after = StableDiffusionPipeline.from_pretrained(exported).unet
    for name, weights in before.state_dict().items():
        assert weights.equal(after.state_dict()[name]), name


def test_each_image_names_the_layer_that_steered_it(steered: RunDir) -> None:
    held_out = {}
    for split in ("val", "test"):
        for shard in (steered.root / "data" / "samples" / split).glob("*.tar"):
            held_out |= {sample.key: sample for sample in read_shard(shard)}
    corpus = sorted((steered.root / "data" / "synthetic").glob("*.tar"))
    images = [sample for shard in corpus for sample in read_shard(shard)]
    assert len(images) == 4
    for image in images:
        by = image.meta["steered_by"]
        tile = held_out[by["tile"]]
        assert by["layer"] == "edges"
        assert by["sha256"] == hashlib.sha256(tile.members["edges.png"]).hexdigest()
        assert image.meta["prompt"] == tile.caption
        assert image.members["edges.png"] == tile.members["edges.png"], "the label of its pixels"
        validate_sample(image)
