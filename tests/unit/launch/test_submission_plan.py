"""What a submission adds to a queue in which jobs of the run may wait already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from line_runs import tiny_run

from hpc.cluster.profile import Profile
from hpc.cluster.slurm import QueuedJob
from hpc.errors import IncompleteError, RunInUseError
from hpc.store.plan import make_plan
from hpc.store.rundir import RunDir, now
from hpc.store.submissions import SubmissionRecord, next_number, publish_submission
from sarhpc.launch.slurm import submit_missing
from sarhpc.launch.submission_plan import SubmissionPlan, plan_submission
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


def job(number: str, reason: str = "Priority", state: str = "PENDING") -> QueuedJob:
    return QueuedJob(number, "", state, reason, "", "", None, None, None, "")


def planned(
    run: RunDir,
    queued: Mapping[str, list[QueuedJob]],
    first: int = 0,
    ending: tuple[str, ...] = (),
) -> SubmissionPlan:
    stages = line_of_stages(load_run_config(run))[first:]
    return plan_submission(run, stages, PROFILE, queued, ending)


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


@pytest.mark.parametrize(("state", "ending"), [("RUNNING", ("7",)), ("COMPLETING", ())])
def test_a_stage_is_submitted_again_behind_its_job_that_ends(
    run: RunDir, state: str, ending: tuple[str, ...]
) -> None:
    seal(run, "simulate", "tile")
    queue = {"caption": [job("7", "None", state)], "train": [job("8", "Dependency")]}
    plan = planned(run, queue, ending=ending)
    assert [(link.stage, link.behind) for link in plan.links] == [
        ("caption", ("7",)), ("train", ()), ("export", ()),
    ]  # fmt: skip
    assert plan.blocked == ("8",)


def test_a_job_that_stopped_and_was_requeued_since_stands(run: RunDir) -> None:
    seal(run, "simulate", "tile", "caption")
    plan = planned(run, {"train": [job("8")]}, ending=("8",))
    assert plan.queued == {"train": ("8",)}


def test_the_job_behind_one_that_ends_stands(run: RunDir) -> None:
    seal(run, "simulate", "tile", "caption")
    jobs = [job("8", "None", "RUNNING"), job("9", "Dependency")]
    plan = planned(run, {"train": jobs, "export": [job("10", "Dependency")]}, ending=("8",))
    assert plan.links == ()
    assert plan.queued == {"train": ("9",), "export": ("10",)}


def test_elements_that_still_work_are_kept_beside_one_that_ends_or_is_held(run: RunDir) -> None:
    seal(run, "simulate", "tile")
    held = job("7_2", "launch failed requeued held")
    jobs = [job("7_0", "None", "RUNNING"), job("7_1", "None", "RUNNING"), held]
    plan = planned(run, {"caption": jobs}, ending=("7_0",))
    assert (plan.links[0].stage, plan.links[0].behind) == ("caption", ("7",))
    assert plan.blocked == ("7_2",)


def test_a_submission_published_after_the_queue_was_read_is_not_repeated(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def queue_of_before(run: RunDir) -> dict[str, list[QueuedJob]]:
        """Another command submits everything as soon as this one has read the queue."""
        number = next_number(run)
        publish_submission(
            run, SubmissionRecord(number, now(), "slurm", "mini", "0" * 8, (), requeue="none")
        )
        return {}

    monkeypatch.setattr("sarhpc.launch.slurm.queued_jobs", queue_of_before)
    # Copies of five hundred files that no job imports would take most of the time.
    code = run.root / "code" / "c0de"
    monkeypatch.setattr("sarhpc.launch.slurm.snapshot_code", lambda *_, **__: code)
    with pytest.raises(RunInUseError, match="another command has just submitted"):
        submit_missing(run, line_of_stages(load_run_config(run)), Profile("mini"))
    assert not list((run.root / "submit").glob("*.sbatch"))
