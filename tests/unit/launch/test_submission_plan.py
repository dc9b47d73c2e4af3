"""What a submission adds to a queue in which jobs of the run may wait already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from line_runs import tiny_run

from hpc.cluster.profile import Profile
from hpc.cluster.slurm import QueuedJob
from hpc.errors import IncompleteError
from hpc.store.plan import make_plan
from hpc.store.rundir import RunDir
from sarhpc.launch.slurm import SubmissionPlan, plan_submission
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config

PROFILE = Profile(name="lab", file="lab.yaml", executor="slurm")
NEVER = "DependencyNeverSatisfied"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return tiny_run(tmp_path / "run", tmp_path / "model", ["generate=null"])


def seal(run: RunDir, *stages: str) -> None:
    for stage in stages:
        run.ledger(stage).seal(make_plan(stage, []))


def job(number: str, reason: str = "Priority") -> QueuedJob:
    return QueuedJob(number, "", "PENDING", reason, "", "", None, None, None, "")


def planned(run: RunDir, queued: Mapping[str, list[QueuedJob]], first: int = 0) -> SubmissionPlan:
    return plan_submission(run, line_of_stages(load_run_config(run))[first:], PROFILE, queued)


def submitted(plan: SubmissionPlan) -> dict[str, tuple[str, ...]]:
    return {link.stage: link.needs for link in plan.links}


def test_all_stages_are_submitted_each_behind_those_it_needs(run: RunDir) -> None:
    plan = planned(run, {})
    assert submitted(plan) == {
        "simulate": (), "tile": ("simulate",), "caption": ("tile",), "train": ("caption",),
        "export": ("train",),
    }  # fmt: skip
    assert (plan.queued, plan.blocked) == ({}, ())


def test_sealed_stages_are_neither_submitted_nor_waited_for(run: RunDir) -> None:
    seal(run, "simulate", "tile")
    assert submitted(planned(run, {})) == {"caption": (), "train": ("caption",),
                                           "export": ("train",)}  # fmt: skip


def test_stages_in_the_queue_are_left_alone(run: RunDir) -> None:
    seal(run, "simulate", "tile")
    plan = planned(run, {"caption": [job("7_0"), job("7_1")], "train": [job("8")]})
    assert submitted(plan) == {"export": ("train",)}
    assert plan.queued == {"caption": ("7",), "train": ("8",)}
    assert plan.blocked == ()


def test_jobs_behind_a_failed_one_are_cancelled_and_submitted_anew(run: RunDir) -> None:
    seal(run, "simulate", "tile")
    plan = planned(run, {"train": [job("8", NEVER)], "export": [job("9", "Dependency")]})
    assert submitted(plan) == {"caption": (), "train": ("caption",), "export": ("train",)}
    assert plan.blocked == ("8", "9")
    assert plan.queued == {}


def test_a_stage_waits_for_a_job_of_an_earlier_submission(run: RunDir) -> None:
    seal(run, "simulate", "tile")
    plan = planned(run, {"caption": [job("7")]}, first=3)
    assert submitted(plan) == {"train": ("caption",), "export": ("train",)}
    assert plan.queued == {"caption": ("7",)}


@pytest.mark.parametrize("queued", [{}, {"caption": [job("7", NEVER)]}])
def test_a_stage_without_what_it_needs_is_refused(
    run: RunDir, queued: dict[str, list[QueuedJob]]
) -> None:
    seal(run, "simulate", "tile")
    with pytest.raises(IncompleteError, match="train needs caption, which is neither sealed nor"):
        planned(run, queued, first=3)
