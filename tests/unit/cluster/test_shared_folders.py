"""A node is blamed for a shared folder only if another node can use it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm, queued

from hpc.cluster import health
from hpc.cluster.bad_nodes import BadNodeList, requeue_elsewhere
from hpc.cluster.health import BadNodeError, Needs, SharedFolderError
from hpc.cluster.shared_folders import Blame, SharedFolder, suspected_nodes
from hpc.job.requeue import is_transient


@pytest.fixture
def shared(tmp_path: Path) -> SharedFolder:
    return SharedFolder("lab", tmp_path / "run", tmp_path / "state")


@pytest.fixture
def listed(tmp_path: Path) -> BadNodeList:
    return BadNodeList("lab", tmp_path / "state")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "run"
    folder.mkdir()
    yield folder
    folder.with_name("aside").exists() and writable(folder)


def unwritable(folder: Path) -> None:
    """No file can be made in `folder`, whoever asks."""
    folder.rename(folder.with_name("aside"))
    folder.write_text("not a folder")


def writable(folder: Path) -> None:
    folder.unlink()
    folder.with_name("aside").rename(folder)


def start_on(node: str, run: Path, listed: BadNodeList, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job starts on `node`."""
    monkeypatch.setenv("SLURMD_NODENAME", node)
    health.require_fit_node(Needs(run=run), listed)


def test_a_run_folder_that_no_node_can_write_puts_none_on_the_list(
    run: Path, listed: BadNodeList, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_on("n1", run, listed, monkeypatch)
    unwritable(run)
    with pytest.raises(BadNodeError, match=r"not put on the list.*another node") as first:
        start_on("n1", run, listed, monkeypatch)
    assert is_transient(first.value), "it may be the node: the job tries another one"
    for node in ("n2", "n3"):
        with pytest.raises(SharedFolderError, match=r"run cannot be used on n1.*folder is at") as e:
            start_on(node, run, listed, monkeypatch)
        assert not is_transient(e.value), "no requeue helps"
        assert "sarhpc resume" in str(e.value)
    assert listed.current() == []
    writable(run)
    for node in ("n1", "n2", "n3"):
        start_on(node, run, listed, monkeypatch)
    assert suspected_nodes("lab", listed.state) == []


def test_a_node_that_alone_cannot_write_is_listed_at_its_second_failure(
    run: Path, listed: BadNodeList, monkeypatch: pytest.MonkeyPatch
) -> None:
    unwritable(run)
    with pytest.raises(BadNodeError):
        start_on("n1", run, listed, monkeypatch)
    assert listed.current() == []
    writable(run)
    start_on("n2", run, listed, monkeypatch)
    unwritable(run)
    with pytest.raises(BadNodeError, match=r"meanwhile n2 could.*--forgive n1"):
        start_on("n1", run, listed, monkeypatch)
    [bad] = listed.current()
    assert (bad.node, "n2 could" in bad.reason) == ("n1", True)


def test_one_node_alone_gives_up_after_three_failures(shared: SharedFolder) -> None:
    found = [shared.record_failure("n1", "read-only") for _ in range(3)]
    assert found == [Blame.UNKNOWN, Blame.UNKNOWN, Blame.FOLDER]


def test_an_outage_that_is_over_says_nothing_of_the_next(shared: SharedFolder) -> None:
    assert shared.record_failure("n1", "read-only") is Blame.UNKNOWN
    shared.record_success("n2")
    path = shared.directory / "failed-n1.json"
    row = json.loads(path.read_text())
    path.write_text(json.dumps(row | {"first": time.time() - 3700}))
    os.utime(shared.directory / "passed-n2.json", (time.time() - 3650,) * 2)
    assert shared.failed_nodes() == []
    assert shared.record_failure("n1", "read-only") is Blame.UNKNOWN


def test_healthy_nodes_leave_no_trace(shared: SharedFolder) -> None:
    shared.record_success("n1")
    assert not shared.directory.exists()
    shared.record_failure("n1", "read-only")
    shared.record_success("n1")
    assert not shared.directory.exists()


@pytest.mark.usefixtures("run")
def test_a_full_disk_of_the_node_itself_is_judged_first(
    run: Path, listed: BadNodeList, monkeypatch: pytest.MonkeyPatch
) -> None:
    unwritable(run)
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    with pytest.raises(BadNodeError, match="--forgive"):
        health.require_fit_node(Needs(run=run, scratch=run.parent / "nowhere"), listed)
    assert [bad.node for bad in listed.current()] == ["n1"]


def test_a_home_that_cannot_be_written_costs_a_healthy_node_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("not a folder")
    listed = BadNodeList("lab", tmp_path / "home")
    start_on("n1", run, listed, monkeypatch)
    unwritable(run)
    with pytest.raises(BadNodeError, match="not put on the list"):
        start_on("n1", run, listed, monkeypatch)


def test_only_the_job_that_failed_there_stays_away_from_a_suspect(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SARHPC_STATE", str(tmp_path / "state"))
    fake_slurm.change(
        jobs=[queued("11")], nodes=[{"N": f"n{i}", "T": "idle", "E": "none"} for i in range(4)]
    )
    SharedFolder("fake", tmp_path / "run").record_failure("n2", "read-only")
    requeue_elsewhere("11")
    assert fake_slurm.calls()[-1] == ["scontrol", "update", "JobId=11", "ExcNodeList=n2"]
    assert BadNodeList("fake").current() == []
