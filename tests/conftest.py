"""Fixtures of all tests."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from forked import fork_dask_workers

from hpc.collector import relax_gc
from hpc.memory import keep_freed_memory

if TYPE_CHECKING:
    from hpc.store.rundir import RunDir

REPOSITORY = Path(__file__).resolve().parent.parent
LONG_FIRST = ("slurm", "chaos", "e2e", "ranks")
"""Folders in the order in which they begin; the short files of the others end a suite together."""
DATA_VARIABLE = "SARHPC_TEST_DATA"
CASES_VARIABLE = "SARHPC_TEST_CASES"

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


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """Verbs set the umask of their process, which here is that of all tests."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Real data that no one here wrote (see its PROVENANCE.md files)."""
    folder = Path(os.environ.get(DATA_VARIABLE, REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real test data at {folder}: set {DATA_VARIABLE} to its folder")
    return folder


@pytest.fixture(scope="session")
def test_cases() -> Path:
    """Small inputs of others that were once read wrongly (see the README.md beside them)."""
    folder = Path(os.environ.get(CASES_VARIABLE, REPOSITORY.parent / "shared" / "cases"))
    if not folder.is_dir():
        pytest.skip(f"no small inputs of others at {folder}: set {CASES_VARIABLE} to their folder")
    return folder


@pytest.fixture(scope="session")
def gains_run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Captioned tiles of twelve simulated scenes, a third of them held out (30 s)."""
    from gains import make_archive

    return make_archive(tmp_path_factory.mktemp("gains") / "run")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A file's tests share a test process, so what they share is made once; long files begin.

    First, as xdist reads the groups at the same occasion.
    """
    # make test-mutants runs without plug-ins.
    distributed = config.pluginmanager.hasplugin("xdist")
    for item in items:
        place = item.path.relative_to(REPOSITORY).as_posix()
        if distributed and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(place))
    items.sort(key=_room_of)


def _room_of(item: pytest.Item) -> int:
    room = item.path.relative_to(REPOSITORY / "tests").parts[0]
    return LONG_FIRST.index(room) if room in LONG_FIRST else len(LONG_FIRST)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Dask workers of slow tests are forked from what has their imports behind it."""
    if item.get_closest_marker("slow") or item.get_closest_marker("slurm"):
        fork_dask_workers(item.get_closest_marker("starts_workers") is None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A run without Slurm or without real data must not pass for one with it."""
    skipped = terminalreporter.stats.get("skipped", [])
    on_slurm = sum("tests/slurm/" in report.nodeid for report in skipped)
    if on_slurm:
        _warn(
            terminalreporter,
            f"{on_slurm} tests on a real Slurm cluster did NOT run. `make slurm-setup` installs "
            "it; SARHPC_REQUIRE_SLURM=1 makes this an error.",
        )
    on_gpu = sum("tests/pretended_gpu/" in report.nodeid for report in skipped)
    if on_gpu:
        _warn(
            terminalreporter,
            f"{on_gpu} tests on a pretended GPU did NOT run: no g++. `make compiler-setup` "
            "installs it; SARHPC_REQUIRE_COMPILER=1 makes this an error.",
        )
    on_data = sum(DATA_VARIABLE in str(report.longrepr) for report in skipped)
    if on_data:
        _warn(
            terminalreporter,
            f"{on_data} tests on real data did NOT run: no ../shared/data and no {DATA_VARIABLE} "
            "(CONTRIBUTING.md says where the files come from).",
        )


def _warn(reporter: pytest.TerminalReporter, line: str) -> None:
    reporter.write_line(line, red=True, bold=True)
