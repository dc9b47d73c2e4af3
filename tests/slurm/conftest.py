"""A real Slurm cluster for the tests of this directory, started once and healed after each test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import mini_slurm
import pytest
from mini_slurm import MiniSlurm


def pytest_itemcollected(item: pytest.Item) -> None:
    """One process runs them all, on one cluster."""
    item.add_marker(pytest.mark.slurm)
    item.add_marker(pytest.mark.xdist_group("slurm"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where Slurm is required, a test that did not run has failed."""
    report = yield
    required = os.environ.get("SARHPC_REQUIRE_SLURM") == "1"
    if required and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"required by SARHPC_REQUIRE_SLURM, but skipped: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def cluster() -> Iterator[MiniSlurm]:
    """Four nodes with two fake GPUs each, partitions main, low, scavenge and high, and sacct."""
    absent = mini_slurm.missing_commands()
    if absent:
        pytest.skip(f"no {', '.join(absent)}: `make slurm-setup` installs it")
    # Not pytest's own directory: munged is another user, and its socket's path has to be short.
    root = Path(tempfile.mkdtemp(prefix="mini-slurm-"))
    started = MiniSlurm(root)
    guard = [sys.executable, mini_slurm.__file__, "guard", str(root)]
    with subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True) as watching:
        try:
            yield started.start()
        finally:
            started.stop()
            watching.communicate()
            shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(autouse=True)
def _healed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test broke or left in the queue is gone for the next one."""
    yield
    if "cluster" in request.fixturenames:
        request.getfixturevalue("cluster").heal()
