"""What every stage says of itself holds together, whichever stages there are."""

from __future__ import annotations

import dataclasses

import pytest
from line_runs import TINY

from hpc.config import loads
from sarhpc.captioning.config import BLIP_MODEL
from sarhpc.captioning.contrastive.config import CLIP_MODEL
from sarhpc.stages.config import RunConfig
from sarhpc.stages.registry import STAGES, line_of_stages, used_models
from sarhpc.stages.spec import StageSpec

ALL = [
    "train.base_model=/m",
    "optical={}",
    "caption_train={}",
    "clip_train={}",
    "encode={}",
    "prior={images: 8, shard_samples: 2}",
    "train.prior={}",
    "compare.models={other: /o}",
]


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return loads(RunConfig, TINY, ALL)


@pytest.mark.parametrize("spec", STAGES, ids=lambda spec: spec.name)
def test_a_description_fits_the_stage_that_it_builds(spec: StageSpec, config: RunConfig) -> None:
    upstream = [one.name for one in STAGES[: STAGES.index(spec)]]
    assert set(spec.needs) <= set(upstream), "a stage reads from earlier ones"
    stage = spec.build(config, upstream)
    assert (stage.name, stage.needs) == (spec.name, spec.needs)
    assert stage.collective == (spec.check_ranks is not None)
    assert not (stage.collective and spec.sharded)
    assert spec.build(config, []).needs == ()
    branches = {field.name for field in dataclasses.fields(RunConfig)}
    assert spec.branches
    assert set(spec.branches) <= branches


def test_stages_that_are_not_asked_for_are_not_in_the_line(config: RunConfig) -> None:
    assert [stage.name for stage in line_of_stages(config)] == [spec.name for spec in STAGES]
    short = loads(RunConfig, TINY, ["simulate=null", "generate=null", "compare.models={o: /o}"])
    line = line_of_stages(short)
    assert [stage.name for stage in line] == ["tile", "caption", "train", "export"]
    assert line[0].needs == ()


def test_models_are_those_of_the_stages_in_the_line(config: RunConfig) -> None:
    assert used_models(config) == [BLIP_MODEL, CLIP_MODEL, "/m", "/o"]
    words = ["train.base_model=/m", "caption={captioner: git, model: /git, clip: {model: /c}}"]
    assert used_models(loads(RunConfig, TINY, words)) == ["/git", "/c", "/m"]
    words = ["train.base_model=/m", "caption_train={base_model: /b}", "generate=null"]
    assert used_models(loads(RunConfig, TINY, [*words, "compare.models={o: /o}"])) == ["/b", "/m"]
