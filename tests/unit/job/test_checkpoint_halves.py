"""The two halves of a save: what is begun is no checkpoint before it is finished."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hpc import publish
from hpc.errors import HpcError, TransientError
from hpc.job.agreement import SingleProcess
from hpc.job.checkpoint import CheckpointStore


def open_store(root: Path) -> CheckpointStore:
    return CheckpointStore(root, SingleProcess(), attempt=0)


def write(directory: Path) -> list[Path]:
    (directory / "weights.bin").write_bytes(bytes(range(256)) * 8)
    return [directory / "weights.bin"]


def newest(root: Path) -> int | None:
    """Step that a start of the job would take up; it sweeps, as a start does."""
    state = open_store(root).load(lambda path, state: None)
    return None if state is None else int(state["step"])


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = open_store(tmp_path)
    store.save(10, write, {})
    return store


def test_what_is_begun_is_lost_with_its_process_and_nothing_else_is(store: CheckpointStore) -> None:
    store.begin(20, write, {})
    assert newest(store.root) == 10
    assert sorted(path.name for path in store.root.iterdir()) == ["latest", "step_00000010"]


def test_a_rank_works_on_while_its_disk_is_slow(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = threading.Event()
    monkeypatch.setattr(publish, "_passages", {})
    monkeypatch.setattr(publish.time, "sleep", lambda _: disk.wait(60))
    monkeypatch.setenv("SARHPC_FAULT", "checkpoint.settle:1:wait")
    store.begin(20, write, {"samples": 3})
    assert store.finish(0.1) is None
    with pytest.raises(HpcError, match="step 20 is pending"):
        store.begin(30, write, {})
    disk.set()
    assert [found.step for found in store.checkpoints()] == [10]
    assert store.finish(threading.TIMEOUT_MAX) == store.root / "step_00000020"
    assert [found.problem for found in store.verify()] == [None, None]
    assert newest(store.root) == 20


def test_a_disk_that_fails_after_the_writing_costs_that_checkpoint_alone(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_passages", {})
    monkeypatch.setenv("SARHPC_FAULT", "checkpoint.settle:1:enospc")
    store.begin(20, write, {})
    with pytest.raises(TransientError, match=r"step_00000020 was not saved.*No space left"):
        store.finish(threading.TIMEOUT_MAX)
    assert sorted(path.name for path in store.root.iterdir()) == ["latest", "step_00000010"]
    store.save(30, write, {})
    assert newest(store.root) == 30


def test_a_whole_checkpoint_of_the_step_is_finished_at_once(store: CheckpointStore) -> None:
    store.begin(10, write, {})
    assert store.finish(0) == store.root / "step_00000010"


def test_only_what_was_begun_can_be_finished(store: CheckpointStore) -> None:
    with pytest.raises(HpcError, match="call begin"):
        store.finish(0)
