"""Fixtures every room uses."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hpc.collector import relax_gc
from hpc.memory import keep_freed_memory

if TYPE_CHECKING:
    from hpc.store.rundir import RunDir

REPOSITORY = Path(__file__).resolve().parent.parent

# Two cores run several test processes: more threads only fight each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# What tests learn of nodes is nothing that the user's own jobs should go by.
if "SARHPC_STATE" not in os.environ:
    os.environ["SARHPC_STATE"] = tempfile.mkdtemp(prefix="sarhpc-state-")
    atexit.register(shutil.rmtree, os.environ["SARHPC_STATE"], ignore_errors=True)
# As the entry of a job does.
keep_freed_memory()
relax_gc()


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Real data that no one here wrote (see its PROVENANCE.md files)."""
    folder = Path(os.environ.get("SARHPC_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real test data at {folder}: set SARHPC_TEST_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def gains_run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Captioned tiles of twelve simulated scenes, a third of them held out (30 s)."""
    from gains import make_archive

    return make_archive(tmp_path_factory.mktemp("gains") / "run")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A run without Slurm must not pass for one with it."""
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum("tests/slurm/" in report.nodeid for report in skipped)
    if count:
        terminalreporter.section("Slurm", sep="!", red=True, bold=True)
        terminalreporter.line(
            f"{count} tests on a real Slurm cluster did NOT run. `make slurm-setup` installs it; "
            "SARHPC_REQUIRE_SLURM=1 makes this an error.",
            red=True,
            bold=True,
        )
