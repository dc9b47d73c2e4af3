"""The stage `prior`: the base model makes regularisation images and is trained on them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from line_runs import make_tiny_model, seal_captions, stage_log, start_stage, tiny_run
from PIL import Image
from shard_checks import validate_shard

from hpc.config import decisive, loads
from hpc.errors import ConfigError
from hpc.store.plan import read_plan
from sarhpc.shards.reader import read_shard
from sarhpc.stages.config import RunConfig
from sarhpc.stages.prior import PRIOR, make_prior_shard, plan_prior
from sarhpc.stages.registry import line_of_stages, stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.settings import require_settings

MADE = "prior={images: 5, steps: 2, batch: 2, shard_samples: 3}"
ASKED = "train.prior={}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.mark.slow
def test_the_base_paints_in_colour_what_it_is_asked_and_the_bytes_come_again(
    tmp_path: Path, model: Path
) -> None:
    run = tiny_run(tmp_path / "run", model, [MADE, ASKED])
    plan = plan_prior(run)
    assert len(plan.shards) == PRIOR.shards(load_run_config(run)) == 2
    made = [make_prior_shard(run, task) for task in plan.shards]
    assert [one.samples for one in made] == [3, 2]
    assert [validate_shard(one.path) for one in made] == [3, 2]
    samples = [sample for one in made for sample in read_shard(one.path)]
    for sample in samples:
        assert sample.members.keys() == {"optic.png", "txt", "meta.json"}
        assert sample.caption == sample.meta["prompt"] == "aerial photography"
        assert sample.meta["synthetic"] is True
        assert sample.meta["config_fingerprint"] == PRIOR.fingerprint(load_run_config(run))
        assert {"pixel_m", "range_direction"}.isdisjoint(sample.meta), "it shows no radar"
        pixels = np.asarray(Image.open(io.BytesIO(sample.members["optic.png"])))
        assert pixels.shape == (32, 32, 3), "as large as the tiles"
        assert np.ptp(pixels, axis=2).max() > 0, "not gray"
    assert len({sample.meta["seed"] for sample in samples}) == 5
    assert make_prior_shard(run, plan.shards[1]).sha256 == made[1].sha256


@pytest.mark.slow
def test_a_training_takes_what_the_base_made_and_tells_their_loss(
    tmp_path: Path, model: Path
) -> None:
    run = tiny_run(
        tmp_path / "run", model, [MADE, ASKED, "cluster.ranks=1", "train.validation_every_steps=0"]
    )
    seal_captions(run)
    for stage in ("prior", "train"):
        assert start_stage(run, stage).wait(timeout=300) == 0, stage_log(run, stage)
    rows = [json.loads(line) for line in (run.stage("train") / "metrics.jsonl").open()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row["prior_loss"] > 0 for row in rows)
    [task] = read_plan(run.plan_file("train")).shards
    assert "prior" in task.inputs, "the plan names the images"


def test_the_line_has_the_stage_where_images_are_to_be_made(tmp_path: Path, model: Path) -> None:
    plain = load_run_config(tiny_run(tmp_path / "plain", model))
    assert "prior" not in [stage.name for stage in line_of_stages(plain)]
    assert stage_named(plain, "train").needs == ("caption",)
    made = load_run_config(tiny_run(tmp_path / "made", model, [MADE, ASKED]))
    names = [stage.name for stage in line_of_stages(made)]
    assert names.index("caption") < names.index("prior") < names.index("train")
    assert stage_named(made, "train").needs == ("caption", "prior")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([ASKED], r"name the folder of their shards .*or let the base model make some"),
        ([MADE], r"for a training with train\.prior=\{\}"),
        ([MADE, "train.prior.shards=/data/aerial"], r"without train\.prior\.shards"),
        ([MADE, ASKED, "prior.table.file=p.csv"], r"prior\.table: these images have one prompt"),
    ],
)
def test_images_that_nobody_makes_or_takes_are_told_before_anything_is_submitted(
    tmp_path: Path, model: Path, words: Sequence[str], why: str
) -> None:
    config = load_run_config(tiny_run(tmp_path / "run", model, words))
    with pytest.raises(ConfigError, match=why):
        require_settings(config, [stage.name for stage in line_of_stages(config)])


def test_a_run_without_the_stage_keeps_its_fingerprint() -> None:
    words = ["train.prior.shards=/data/aerial"]
    assert "prior" not in decisive(loads(RunConfig, "simulate: {seed: 1}", words))
