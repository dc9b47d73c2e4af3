"""One pass of a supervisor: what it submits again, what it leaves, and what it says of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_slurm import FakeSlurm, queued
from line_runs import tiny_run

from hpc.cluster.slurm import SlurmMissingError
from hpc.errors import ConfigError, IncompleteError, RunInUseError, TransientError
from hpc.job.pipeline import Stage
from hpc.store.attempts import begin_attempt, end_attempt
from hpc.store.lease import lease, live_holder
from hpc.store.plan import make_plan
from hpc.store.rundir import RunDir, now
from hpc.store.submissions import (
    SubmissionRecord,
    SubmittedJob,
    publish_submission,
    submission_lease,
)
from hpc.store.supervision import read_resubmissions
from sarhpc.launch import supervise as supervise_module
from sarhpc.launch.supervise import (
    Pass,
    Target,
    supervise,
    supervise_once,
    supervisor_lease,
)

STAGES = ("simulate", "tile", "caption", "train", "export")


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "lab.yaml"
    path.write_text("executor: slurm\n")
    return str(path)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setenv("SARHPC_STATE", str(tmp_path / "state"))
    # Copies of five hundred files that no job imports would take most of the time.
    code = tmp_path / "run" / "code" / "c0de"
    monkeypatch.setattr("sarhpc.launch.slurm.snapshot_code", lambda *_, **__: code)
    return tiny_run(tmp_path / "run", tmp_path / "model", ["generate=null"])


def submitted(run: RunDir, number: int, **jobs: str) -> None:
    """Submission `number`: the job of each stage."""
    rows = tuple(
        SubmittedJob(stage, job, None, None, "x", "y", 1, 0) for stage, job in jobs.items()
    )
    publish_submission(run, SubmissionRecord(number, now(), "slurm", "lab", f"t{number}", rows))


def seal(run: RunDir, *stages: str) -> None:
    for stage in stages:
        run.ledger(stage).seal(make_plan(stage, []))


def on_slurm(run: RunDir, profile: str, **more: object) -> Pass:
    return supervise_once(run, Target(profile=profile, **more))  # type: ignore[arg-type]


def given(site: FakeSlurm) -> list[str]:
    """Stages whose scripts were given to sbatch, in order."""
    return [call[-1].rpartition("-")[2].removesuffix(".sbatch") for call in site.calls("sbatch")]


@pytest.fixture
def line(run: RunDir, fake_slurm: FakeSlurm) -> RunDir:
    """A run of which a command submitted every stage and the first is sealed; no job is left."""
    submitted(run, 0, **{stage: str(10 + n) for n, stage in enumerate(STAGES)})
    seal(run, "simulate")
    fake_slurm.change(jobs=[], nodes=[{"N": "n1", "T": "idle", "E": "none"}])
    return run


def failed(run: RunDir, stage: str, code: int, reason: str) -> None:
    end_attempt(run.stage(stage), begin_attempt(run.stage(stage), 0), 0, code, reason)


def test_what_is_lost_is_submitted_again_with_all_that_waits_for_it(
    fake_slurm: FakeSlurm, line: RunDir, profile: str
) -> None:
    found = on_slurm(line, profile)
    assert found == Pass(
        (
            "tile: job 11 is gone without an end row; submitted again as job 100",
            "submitted behind: caption 101, train 102, export 103",
        ),
        on_its_way=True,
    )
    assert given(fake_slurm) == ["tile", "caption", "train", "export"]
    [row] = read_resubmissions(line)
    assert (row.stage, row.progress, row.jobs, row.submission) == ("tile", 0, ("100",), 1)
    assert row.why == "job 11 is gone without an end row"
    assert on_slurm(line, profile) == Pass(on_its_way=True), "all of it waits in the queue"
    assert len(given(fake_slurm)) == 4


def test_only_what_has_no_job_is_submitted_again(
    fake_slurm: FakeSlurm, line: RunDir, profile: str
) -> None:
    waiting = [queued("12", "PENDING"), queued("14", "PENDING")]
    fake_slurm.change(jobs=[queued("11"), *waiting])
    found = on_slurm(line, profile)
    assert given(fake_slurm) == ["train", "export"], "the other export waited for the lost one"
    assert fake_slurm.calls("scancel")[0][-1] == "14"
    assert found.actions == ("submitted behind: train 100, export 101",)
    assert read_resubmissions(line) == [], "what could not have run has not failed"


@pytest.mark.parametrize(
    ("state", "reason", "leaving", "lost"),
    [
        ("RUNNING", "None", (), False),
        ("RUNNING", "None", ("11",), True),
        ("RUNNING", "None", ("12",), False),
        ("COMPLETING", "None", (), False),
        ("COMPLETING", "None", ("11",), True),
        ("PENDING", "Priority", ("11",), False),
        ("PENDING", "DependencyNeverSatisfied", (), True),
    ],
)
def test_a_job_that_ends_now_or_never_starts_does_not_do_its_stage(
    fake_slurm: FakeSlurm,
    line: RunDir,
    profile: str,
    state: str,
    reason: str,
    leaving: tuple[str, ...],
    lost: bool,
) -> None:
    seal(line, "caption", "train")
    waiting = queued("14", "PENDING", Reason="Dependency")
    fake_slurm.change(jobs=[queued("11", state, Reason=reason), waiting])
    on_slurm(line, profile, leaving=leaving)
    assert ("tile" in given(fake_slurm)) is lost


def test_a_sealed_run_is_complete_and_asks_nobody(
    fake_slurm: FakeSlurm, line: RunDir, profile: str
) -> None:
    seal(line, *STAGES[1:])
    assert on_slurm(line, profile) == Pass(complete=True)
    assert fake_slurm.calls() == []


def test_a_stopped_run_is_left_alone(fake_slurm: FakeSlurm, line: RunDir, profile: str) -> None:
    line.stop_file.touch()
    why = f"stopped by an operator; continue with: sarhpc resume {line.root}"
    assert on_slurm(line, profile) == Pass(obstacles=(why,))
    assert fake_slurm.calls() == []


def test_while_another_command_submits_nothing_is_done(
    fake_slurm: FakeSlurm, line: RunDir, profile: str
) -> None:
    with lease(submission_lease(line)):
        assert on_slurm(line, profile) == Pass(on_its_way=True)
    assert fake_slurm.calls() == []


def test_a_failure_that_would_repeat_keeps_back_all_that_needs_it(
    fake_slurm: FakeSlurm, line: RunDir, profile: str
) -> None:
    failed(line, "tile", 2, "ConfigError: no such archive")
    found = on_slurm(line, profile)
    assert (given(fake_slurm), found.actions, found.on_its_way) == ([], (), False)
    [why] = found.obstacles
    assert why.startswith("tile: ")
    assert f"no such archive; fix the cause, then `sarhpc resume {line.root}`" in why
    fake_slurm.change(jobs=[queued("13", "PENDING")])
    assert on_slurm(line, profile).on_its_way, "the training is in the queue"


@pytest.mark.parametrize("only_lost", [False, True])
def test_a_failure_of_the_machine_is_tried_again_unless_only_lost_work_counts(
    fake_slurm: FakeSlurm, line: RunDir, profile: str, only_lost: bool
) -> None:
    failed(line, "tile", 1, "RuntimeError: device lost")
    found = on_slurm(line, profile, only_lost=only_lost)
    assert bool(given(fake_slurm)) is not only_lost
    reported = " ".join(found.obstacles if only_lost else found.actions)
    assert "RuntimeError: device lost" in reported
    assert "continue with" not in reported


def test_nothing_beyond_a_stage_is_submitted_where_that_is_asked(
    fake_slurm: FakeSlurm, line: RunDir, profile: str
) -> None:
    on_slurm(line, profile, until="caption")
    assert given(fake_slurm) == ["tile", "caption"]
    with pytest.raises(ConfigError, match="no stage 'nope' in this run; it has simulate, tile, "):
        on_slurm(line, profile, until="nope")
    seal(line, "tile")
    assert on_slurm(line, profile, until="tile") == Pass(complete=True)


def test_stages_that_no_command_submitted_are_not_supervised(
    fake_slurm: FakeSlurm, run: RunDir, profile: str
) -> None:
    fake_slurm.change(jobs=[], nodes=[{"N": "n1", "T": "idle", "E": "none"}])
    submitted(run, 0, simulate="10", tile="11")
    on_slurm(run, profile)
    assert given(fake_slurm) == ["simulate", "tile"]
    seal(run, "simulate", "tile")
    assert on_slurm(run, profile) == Pass(complete=True)


def test_jobs_of_scripts_need_a_profile_and_the_debug_executor_has_none(run: RunDir) -> None:
    with pytest.raises(ConfigError, match="executor debug has no jobs to supervise"):
        supervise_once(run, Target(executor="debug"))
    submitted(run, 0, simulate="10")
    newest = SubmittedJob("simulate", "10", None, None, "x", "y", 1, 0)
    publish_submission(run, SubmissionRecord(1, now(), "script", "", "t1", (newest,)))
    with pytest.raises(ConfigError, match="were submitted by scripts, without a profile; give"):
        supervise_once(run, Target())


@pytest.fixture
def drivers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """First stage, last stage and executor of each driver that was started, which does nothing."""
    started: list[tuple[str, str, str]] = []

    def start(run: RunDir, stages: list[Stage], executor: str) -> tuple[SimpleNamespace, str]:
        started.append((stages[0].name, stages[-1].name, executor))
        return SimpleNamespace(job_id="77"), "line"

    monkeypatch.setattr("sarhpc.launch.local.start_driver", start)
    return started


def test_on_this_machine_the_line_is_started_again_at_its_first_unsealed_stage(
    run: RunDir, drivers: list[tuple[str, str, str]]
) -> None:
    seal(run, "simulate")
    failed(run, "tile", 137, "killed: no end row was written")
    found = supervise_once(run, Target(executor="local"))
    assert drivers == [("tile", "export", "local")]
    [action] = found.actions
    assert action.startswith("tile: ")
    assert action.endswith("; started again as process 77")
    assert (found.on_its_way, found.complete, found.obstacles) == (True, False, ())
    [row] = read_resubmissions(run)
    assert (row.stage, row.jobs, row.submission) == ("tile", ("77",), None)


def test_jobs_of_scripts_or_none_go_on_by_the_executor_that_is_named_or_configured(
    run: RunDir, drivers: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc.cluster.slurm.is_available", lambda: False)
    assert supervise_once(run, Target()).on_its_way, "nothing was submitted yet"
    job = SubmittedJob("simulate", "10", None, None, "x", "y", 1, 0)
    publish_submission(run, SubmissionRecord(0, now(), "script", "", "t0", (job,)))
    assert supervise_once(run, Target(executor="local")).on_its_way
    assert [executor for _, _, executor in drivers] == ["local", "local"]


def test_on_this_machine_work_under_way_and_failures_that_would_repeat_are_left_alone(
    run: RunDir, drivers: list[tuple[str, str, str]]
) -> None:
    target = Target(executor="local")
    with lease(run.stage("simulate") / ".lease.json"):
        begin_attempt(run.stage("simulate"), 0)
        assert supervise_once(run, target) == Pass(on_its_way=True)
    failed(run, "simulate", 3, "NumericalError: the loss is nan")
    [why] = supervise_once(run, target).obstacles
    assert why.startswith("simulate: ")
    assert "NumericalError: the loss is nan" in why
    seal(run, *STAGES)
    assert supervise_once(run, target) == Pass(complete=True)
    assert (drivers, read_resubmissions(run)) == ([], [])


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Pass | Exception]:
    """What the passes of a supervisor come to, one after the other."""
    ends: list[Pass | Exception] = []

    def one_pass(run: RunDir, target: Target) -> Pass:
        assert live_holder(supervisor_lease(run)) is not None
        found = ends.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(supervise_module, "supervise_once", one_pass)
    return ends


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr("sarhpc.launch.supervise.time.sleep", pauses.append)
    return pauses


def say_to(lines: list[str]) -> Callable[[str], None]:
    """Takes lines without their time."""
    return lambda text: lines.append(text.partition(" ")[2])


def test_passes_follow_each_other_until_all_is_sealed(
    run: RunDir, passes: list[Pass | Exception], slept: list[float]
) -> None:
    blocked = Pass(obstacles=("tile: no",), on_its_way=True)
    done = Pass(("tile: again",), ("tile: no",), on_its_way=True)
    in_use = RunInUseError("worked on")
    passes += [blocked, blocked, done, done, in_use, in_use, Pass(complete=True)]
    lines: list[str] = []
    assert supervise(run, Target(), 7.0, say_to(lines)) == 0
    assert slept == [7.0] * 6
    assert lines == ["tile: no", "tile: again", "tile: again", "worked on",
                     "every submitted stage is sealed"]  # fmt: skip
    assert not supervisor_lease(run).exists()


def test_a_single_pass_ends_well_while_something_is_on_its_way(
    run: RunDir, passes: list[Pass | Exception], slept: list[float]
) -> None:
    for one in (Pass(on_its_way=True), RunInUseError("worked on")):
        passes.append(one)
        assert supervise(run, Target(), None, say_to([])) == 0
    assert slept == []


@pytest.mark.parametrize("every_s", [None, 5.0])
def test_nothing_on_its_way_and_nothing_to_submit_is_an_error_with_the_reasons(
    run: RunDir, passes: list[Pass | Exception], every_s: float | None
) -> None:
    passes.append(Pass(obstacles=("tile: no", "train: neither")))
    with pytest.raises(IncompleteError, match=r"nothing is submitted: tile: no; train: neither$"):
        supervise(run, Target(), every_s, say_to([]))


def test_an_outage_of_slurm_ends_a_single_pass_only(
    run: RunDir, passes: list[Pass | Exception], slept: list[float]
) -> None:
    passes += [TransientError("Slurm does not answer")] * 3
    passes.append(Pass(complete=True))
    with pytest.raises(TransientError):
        supervise(run, Target(), None, say_to([]))
    lines: list[str] = []
    assert supervise(run, Target(), 5.0, say_to(lines)) == 0
    assert lines == ["Slurm does not answer; trying again", "every submitted stage is sealed"]


@pytest.mark.parametrize("error", [ConfigError("no profile"), SlurmMissingError("no squeue")])
def test_what_no_later_pass_could_do_ends_the_supervisor(
    run: RunDir, passes: list[Pass | Exception], error: Exception
) -> None:
    passes.append(error)
    with pytest.raises(type(error)):
        supervise(run, Target(), 5.0, say_to([]))


def test_a_run_has_one_supervisor(run: RunDir) -> None:
    supervisor_lease(run).parent.mkdir(exist_ok=True)
    with (
        lease(supervisor_lease(run)),
        pytest.raises(RunInUseError, match=f"{run.root} is supervised by process"),
    ):
        supervise(run, Target(), None)
