"""What a supervisor outlasts."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from line_runs import tiny_run

from hpc.errors import ConfigError
from hpc.store.local_jobs import live_local_jobs
from hpc.store.rundir import RunDir
from sarhpc.launch import supervise as supervise_module
from sarhpc.launch.supervise import Pass, Target, supervise


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return tiny_run(tmp_path / "run", tmp_path / "model")


def fail_once(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The first pass ends with that error of the system, the next ones find the run complete."""
    ends = iter([OSError(number, "as the disk says")])

    def one_pass(run: RunDir, target: Target) -> Pass:
        if (error := next(ends, None)) is not None:
            raise error
        return Pass(complete=True)

    monkeypatch.setattr(supervise_module, "supervise_once", one_pass)


def test_a_disk_that_is_full_for_a_while_ends_no_supervisor(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_once(monkeypatch, errno.ENOSPC)
    printed: list[str] = []
    assert supervise(run, Target(), 0.0, printed.append) == 0
    assert [line.partition(" ")[2] for line in printed] == [
        f"no space left for {run.root}; trying again",
        "every submitted stage is sealed",
    ]


@pytest.mark.parametrize(("number", "every_s"), [(errno.ENOSPC, None), (errno.EACCES, 0.0)])
def test_a_single_pass_and_other_errors_of_the_system_end_it(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, number: int, every_s: float | None
) -> None:
    fail_once(monkeypatch, number)
    with pytest.raises(OSError, match="as the disk says"):
        supervise(run, Target(), every_s)


def test_a_supervisor_starts_nothing_on_a_machine_with_slurm_unless_told_so(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{slurm.bin}:{os.environ['PATH']}")
    with pytest.raises(ConfigError, match=r"--profile NAME.*--executor local"):
        supervise(run, Target(), None)
    assert not live_local_jobs(run)
