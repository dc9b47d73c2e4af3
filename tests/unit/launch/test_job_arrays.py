"""Which stages a job array may divide: what the profile asks for against what a stage is."""

from __future__ import annotations

from pathlib import Path

import pytest
from line_runs import tiny_run

from hpc.cluster.profile import Profile, Resources
from hpc.errors import ConfigError
from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now
from hpc.store.submissions import SubmissionRecord, SubmittedJob, stripe
from sarhpc.launch.submission_plan import link_of
from sarhpc.stages.registry import STAGES, stage_named
from sarhpc.stages.run_config import load_run_config

EVERYTHING = [
    "optical={}",
    "caption_train={}",
    "clip_train={}",
    "encode={}",
    "prior={images: 8, shard_samples: 2}",
    "train.prior={}",
    "compare.models={other: /m}",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    folder = tmp_path_factory.mktemp("arrays")
    return tiny_run(folder / "run", folder / "model", EVERYTHING)


def in_thirds(stage: str) -> Profile:
    return Profile(
        name="lab", file="lab.yaml", executor="slurm", stages={stage: Resources(elements=3)}
    )


@pytest.mark.parametrize("name", [spec.name for spec in STAGES if spec.sharded])
def test_a_sharded_stage_can_be_a_job_array(run: RunDir, name: str) -> None:
    config = load_run_config(run)
    link = link_of(run, config, stage_named(config, name), in_thirds(name))
    assert (link.stage, link.resources.elements) == (name, 3)


def test_stages_whose_shards_an_array_divides() -> None:
    assert {spec.name for spec in STAGES if spec.sharded} == {
        "simulate", "tile", "optical", "caption", "encode", "prior", "generate", "compare"
    }  # fmt: skip


@pytest.mark.parametrize("name", [spec.name for spec in STAGES if not spec.sharded])
def test_a_stage_with_one_shard_cannot(run: RunDir, name: str) -> None:
    config = load_run_config(run)
    with pytest.raises(ConfigError, match=rf"stages\.{name}\.elements=3, but only simulate, tile"):
        link_of(run, config, stage_named(config, name), in_thirds(name))


def test_shards_that_the_configuration_tells_bound_an_array(run: RunDir) -> None:
    config = load_run_config(run)
    told = {spec.name: spec.shards(config) for spec in STAGES if spec.sharded}
    assert told == {
        "simulate": 4, "tile": None, "optical": None, "caption": None, "encode": None,
        "prior": 4, "generate": 12, "compare": 16,
    }  # fmt: skip
    assert link_of(run, config, stage_named(config, "prior"), in_thirds("prior")).expected == 4


def test_what_a_slow_element_left_is_divided_over_all_elements_of_the_next_array(
    tmp_path: Path,
) -> None:
    run = tiny_run(tmp_path / "run", tmp_path / "model", EVERYTHING)
    plan = make_plan("generate", [{"n": n} for n in range(30)])
    publish_plan(plan, run.plan_file("generate"))
    slow = {task.id for task in plan.shards[1::3][2:]}
    for task in plan.shards:
        if task.id not in slow:
            run.ledger("generate").publish(
                Record(task.id, plan.id, "/d", 2, 9, "aa", 0, "n1", now(), now())
            )
    config = load_run_config(run)
    link = link_of(run, config, stage_named(config, "generate"), in_thirds("generate"))
    assert link.shards is not None
    assert set(link.shards) == slow
    job = SubmittedJob("generate", "77", 3, None, "", "", 1, 0)
    record = SubmissionRecord(
        2, now(), "slurm", "lab", "f00d", (job,), shards={"generate": link.shards}
    )
    parts = [stripe(record, "generate", element) for element in range(3)]
    assert sorted(shard for part in parts for shard in part) == sorted(slow)
    assert [len(part) for part in parts] == [3, 3, 2]
