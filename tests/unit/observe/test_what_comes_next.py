"""What the status advises: to start, to go on with other stages, to resume, or to mend first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from queued_runs import STAGES, Slurm, stand, submitted

from hpc.observe.status import RunStatus, run_status
from hpc.observe.view import status_lines
from hpc.store.attempts import begin_attempt, end_attempt
from hpc.store.local_jobs import record_local_job
from hpc.store.rundir import RunDir, create_run


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return create_run(tmp_path / "run", "a: 1\n", "f00d")


def shown(status: RunStatus) -> tuple[str, set[str]]:
    """The advice below the table, and its styles."""
    lines = status_lines(status, 1000)
    found = [line for line in lines if line.text.startswith(("!", "the requested", "nothing"))]
    return " ".join(line.text for line in found), {line.style for line in found}


def failed(run: RunDir, stage: str, code: int, reason: str) -> None:
    attempt = begin_attempt(run.stage(stage), 0)
    end_attempt(run.stage(stage), attempt, 0, code, reason)


def ended_local_job(run: RunDir, what: str) -> None:
    record_local_job(run, os.getpid(), what)


def test_a_draft_is_told_how_to_start(run: RunDir) -> None:
    assert not run_status(run, STAGES).over
    text, styles = shown(run_status(run, STAGES))
    assert text == f"nothing has been started yet; start with: sarhpc run {run.root}"
    assert styles == {"dim"}


@pytest.mark.parametrize("what", ["tile", "line:tile:tile"])
def test_requested_stages_that_are_done_name_the_next_command(run: RunDir, what: str) -> None:
    ended_local_job(run, what)
    assert not run_status(run, STAGES).over
    stand(run, "tile", 2, 2)
    assert run_status(run, STAGES).over, "a view of it ends"
    text, styles = shown(run_status(run, STAGES))
    assert text == f"the requested stages are complete; for train: sarhpc run {run.root}"
    assert styles == {"green"}


def test_so_do_those_that_were_submitted(run: RunDir) -> None:
    submitted(run, ("tile", "11"))
    stand(run, "tile", 2, 2)
    text, _ = shown(run_status(run, STAGES, Slurm()))
    assert text == f"the requested stages are complete; for train: sarhpc run {run.root}"


def test_a_driver_that_died_between_its_stages_is_no_success(run: RunDir) -> None:
    ended_local_job(run, "line:tile:train")
    stand(run, "tile", 2, 2)
    assert not run_status(run, STAGES).over
    text, styles = shown(run_status(run, STAGES))
    assert text == (
        "! nothing is on its way: no job is queued or running for train; continue with: "
        f"sarhpc resume {run.root}"
    )
    assert styles == {"red"}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (2, "ConfigError: another value"),
        (3, "NumericalError: not finite"),
        (4, "VerificationError: the gate accepts none of 64 images"),
        (1, "GpuMemoryError: the memory of the GPU is full"),
    ],
)
def test_a_failure_that_would_come_again_is_to_be_mended_first(
    run: RunDir, code: int, reason: str
) -> None:
    ended_local_job(run, "line:tile:tile")
    failed(run, "tile", code, reason)
    status = run_status(run, STAGES)
    text, styles = shown(status)
    assert "tile would fail again: do what the message above says first" in text
    assert "continue with" not in text
    assert styles == {"red"}
    assert status.to_json()["stages"][0]["permanent"] is True


@pytest.mark.parametrize("code", [1, 5, 75])
def test_any_other_failure_is_resumed(run: RunDir, code: int) -> None:
    failed(run, "tile", code, "connection reset")
    text, _ = shown(run_status(run, STAGES))
    assert text.endswith(f"continue with: sarhpc resume {run.root}")
