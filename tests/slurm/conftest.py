"""A real Slurm cluster for the tests of this directory, healed after each test.

Most of their time is waiting: for Slurm, and for the processes it starts. Those that train share
one test process and its cluster, and all the others another one.
"""

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
from chain_runs import forget_jobs
from line_runs import make_tiny_model
from mini_slurm import MiniSlurm
from training_runs import ready_to_train, train_undisturbed

from hpc.store.rundir import RunDir


def pytest_itemcollected(item: pytest.Item) -> None:
    """Two processes run them all, each on a cluster of its own."""
    trains = "ready_training" in getattr(item, "fixturenames", ())
    item.add_marker(pytest.mark.slurm)
    item.add_marker(pytest.mark.xdist_group("slurm-training" if trains else "slurm"))


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


@pytest.fixture(scope="session")
def ready_training(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run whose next stage is training; tests work on copies."""
    model = make_tiny_model(tmp_path_factory.mktemp("model"))
    return ready_to_train(tmp_path_factory.mktemp("ready") / "run", model)


@pytest.fixture(scope="session")
def calm_training(ready_training: RunDir, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The same run after a training that nothing disturbed."""
    return train_undisturbed(ready_training, tmp_path_factory.mktemp("calm") / "run")


@pytest.fixture(autouse=True)
def _healed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test broke or left in the queue is gone for the next one, or when it repeats."""
    if getattr(request.node, "execution_count", 1) > 1 and "cluster" in request.fixturenames:
        forget_jobs(request.getfixturevalue("cluster"))
    yield
    if "cluster" in request.fixturenames:
        request.getfixturevalue("cluster").heal()
