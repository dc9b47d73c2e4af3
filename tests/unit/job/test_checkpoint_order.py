"""The order in which a checkpoint comes and goes, and what its options change."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, TypeVar

import pytest
from disk_calls import record_disk_calls

from hpc import publish
from hpc.errors import ConfigError, HpcError, TransientError
from hpc.job.agreement import Outcome, SingleProcess
from hpc.job.checkpoint import CheckpointStore
from hpc.job.manifest import MANIFEST

T = TypeVar("T")


def open_store(root: Path, **options: Any) -> CheckpointStore:
    return CheckpointStore(root, SingleProcess(), attempt=0, **options)


def write(directory: Path) -> list[Path]:
    (directory / "unet").mkdir()
    files = [directory / "unet" / "weights.bin", directory / "optimizer.bin"]
    for file in files:
        file.write_bytes(bytes(range(256)))
    return files


def save(store: CheckpointStore, *steps: int) -> None:
    for step in steps:
        store.save(step, write, {"samples": step * 4})


def steps(store: CheckpointStore) -> list[int]:
    return [found.step for found in store.checkpoints()]


def test_files_then_manifest_then_name_then_latest_then_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    save(store, 10, 20)
    calls = record_disk_calls(monkeypatch)
    path = store.save(30, write, {})
    named = [call for call in calls.found if call.name != "fsync"]
    told = [(call.name, call.target.name if call.target else "") for call in named]
    assert [name for name, _ in told] == ["replace"] * 4 + ["rmtree"]
    manifest, renamed, latest, aside, removed = named
    assert manifest.target is not None
    staging = manifest.target.parent
    assert manifest.target.name == MANIFEST
    assert (renamed.path, renamed.target) == (staging, path)
    assert latest.target == tmp_path / "latest"
    assert aside.path == tmp_path / "step_00000010"
    assert removed.path == aside.target, "validity goes first, by name"
    assert removed.path.name.startswith(".trash-")


def test_every_file_is_durable_before_the_manifest_counts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    calls = record_disk_calls(monkeypatch)
    store.save(10, write, {})
    first = next(at for at, call in enumerate(calls.found) if call.name == "replace")
    synced = {call.path.name for call in calls.found[:first] if call.name == "fsync"}
    assert {"weights.bin", "optimizer.bin"} <= synced
    renamed = calls.at("replace", tmp_path / "step_00000010")
    synced = {call.path.name for call in calls.found[first:renamed] if call.name == "fsync"}
    assert {MANIFEST, "unet", "weights.bin", "optimizer.bin"} <= synced
    assert tmp_path in [call.path for call in calls.found[renamed:] if call.name == "fsync"]


def test_half_a_deletion_does_not_look_like_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    save(store, 10, 20)
    monkeypatch.setattr(publish, "_passages", {})
    monkeypatch.setenv("SARHPC_FAULT", "checkpoint.before_delete:1:raise")
    with pytest.raises(TransientError, match="fault injected"):
        save(store, 30)
    assert steps(store) == [30, 20]
    assert not list(tmp_path.glob("step_00000010*"))
    monkeypatch.delenv("SARHPC_FAULT")
    save(store, 40)
    assert steps(store) == [40, 30]
    assert not list(tmp_path.glob(".*")), "the next save sweeps what was left"


def flip_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[100] ^= 4
    file.write_bytes(content)


@pytest.mark.parametrize(("check_sha256", "taken"), [(True, 10), (False, 20)])
def test_bytes_are_compared_on_loading_unless_told_not_to(
    tmp_path: Path, check_sha256: bool, taken: int
) -> None:
    store = open_store(tmp_path, check_sha256=check_sha256)
    save(store, 10, 20)
    flip_bit(tmp_path / "step_00000020" / "optimizer.bin")
    state = store.load(lambda path, state: None)
    assert state == {"samples": taken * 4, "step": taken, "world_size": 1}


def test_keep_every_step_keeps_every_step(tmp_path: Path) -> None:
    store = open_store(tmp_path, keep_every=1)
    save(store, 1, 2, 3, 4)
    assert steps(store) == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("options", "kept"),
    [({}, [5, 4]), ({"keep_last": 3}, [5, 4, 3]), ({"keep_every": 3}, [5, 4, 3])],
)
def test_the_newest_stay(tmp_path: Path, options: dict[str, Any], kept: list[int]) -> None:
    store = open_store(tmp_path, **options)
    save(store, 1, 2, 3, 4, 5)
    assert steps(store) == kept


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    store = open_store(tmp_path, keep_last=9)
    save(store, 99_999_999, 100_000_000, 9)
    assert steps(store) == [100_000_000, 99_999_999, 9]
    state = store.load(lambda path, state: None)
    assert state is not None
    assert state["step"] == 100_000_000


@pytest.mark.parametrize("keep_every", [0, -1])
def test_a_milestone_every_nothing_is_refused(tmp_path: Path, keep_every: int) -> None:
    with pytest.raises(ConfigError, match="positive number of steps"):
        open_store(tmp_path, keep_every=keep_every)


class TwoRanks:
    """Rank 0 of two: what the other one says is told beforehand."""

    rank, world = 0, 2

    def __init__(self, other_flag: bool = False, other_files: Any = None) -> None:
        self.other_flag = other_flag
        self.other_files = other_files

    def barrier(self) -> None:
        pass

    def broadcast(self, value: T) -> T:
        return value

    def any(self, flag: bool) -> bool:
        return flag or self.other_flag

    def maximum(self, value: int) -> int:
        return value

    def gather(self, value: T) -> list[T]:
        settled = isinstance(value, Outcome) and isinstance(value.value, dict)
        other: Any = Outcome(1, self.other_files if settled else None)
        return [value, other]


def test_no_rank_finishes_before_all_are_ready(tmp_path: Path) -> None:
    ranks = TwoRanks(other_flag=True, other_files={})
    store = CheckpointStore(tmp_path, ranks, attempt=0)
    store.begin(10, write, {})
    assert store.finish(threading.TIMEOUT_MAX) is None, "this rank is ready, the other is not"
    ranks.other_flag = False
    assert store.finish(threading.TIMEOUT_MAX) == tmp_path / "step_00000010"


def late(file: Path, after_s: float) -> threading.Timer:
    timer = threading.Timer(after_s, file.write_bytes, [b"abc"])
    timer.start()
    return timer


def test_a_file_of_another_rank_may_show_up_late(tmp_path: Path) -> None:
    ranks = TwoRanks(other_files={"rank1.bin": publish.Digest(3, "ab")})
    store = CheckpointStore(tmp_path, ranks, attempt=0)
    store.begin(10, write, {})
    [staging] = tmp_path.glob(".staging-*")
    timer = late(staging / "rank1.bin", 0.15)
    path = store.finish(threading.TIMEOUT_MAX)
    timer.join()
    assert path is not None
    assert (path / "rank1.bin").read_bytes() == b"abc"


def test_a_file_of_another_rank_that_never_shows_up_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = TwoRanks(other_files={"rank1.bin": publish.Digest(3, "ab")})
    store = CheckpointStore(tmp_path, ranks, attempt=0)
    store.begin(10, write, {})
    clock, slept = iter(range(0, 100_000, 60)), list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(time, "sleep", slept.append)
    with pytest.raises(TransientError, match=r"rank1\.bin is missing on rank 0, 60 s after"):
        store.finish(threading.TIMEOUT_MAX)
    assert steps(store) == []
    assert slept == [0.1], "it is looked for once more at the end of the minute"


def test_two_ranks_may_not_report_one_file(tmp_path: Path) -> None:
    ranks = TwoRanks(other_files={"optimizer.bin": publish.Digest(256, "ab")})
    store = CheckpointStore(tmp_path, ranks, attempt=0)
    with pytest.raises(TransientError, match="two ranks report the same file"):
        store.save(10, write, {})


def test_the_manifest_says_who_wrote_what(tmp_path: Path) -> None:
    before = time.time()
    store = CheckpointStore(tmp_path, TwoRanks(other_files={}), attempt=7)
    store.save(10, write, {"samples": 40})
    [found] = store.checkpoints()
    assert found.manifest is not None
    assert (found.manifest.step, found.manifest.world_size, found.manifest.attempt) == (10, 2, 7)
    assert before <= found.manifest.created <= time.time()
    assert found.manifest.state == {"samples": 40}
    assert found.manifest.files == {
        name: publish.digest_file(found.path / name)
        for name in ("optimizer.bin", "unet/weights.bin")
    }


@pytest.mark.parametrize(("failures", "loads"), [(2, 10), (3, None)])
def test_two_unreadable_checkpoints_are_set_aside_and_three_are_not(
    tmp_path: Path, failures: int, loads: int | None
) -> None:
    store = open_store(tmp_path, keep_last=5)
    save(store, 10, 20, 30, 40)
    unreadable = [40, 30, 20][:failures] if loads is None else [30, 20]
    if loads is not None:
        (tmp_path / "step_00000040" / "optimizer.bin").unlink()

    def read(path: Path, state: Any) -> None:
        if state["step"] in unreadable:
            raise RuntimeError("does not fit")

    if loads is None:
        with pytest.raises(HpcError, match="can be loaded"):
            store.load(read)
        assert steps(store) == [40, 30, 20, 10]
    else:
        state = store.load(read)
        assert state is not None
        assert state["step"] == loads
        assert steps(store) == [10]
        assert len(list(tmp_path.glob("*.bad"))) == 3


def test_what_was_set_aside_before_keeps_its_name(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for _ in range(3):
        save(store, 10)
        (tmp_path / "step_00000010" / "optimizer.bin").unlink()
    save(store, 10)
    found = sorted(path.name for path in tmp_path.glob("*.bad*"))
    assert found == ["step_00000010.bad", "step_00000010.bad-2", "step_00000010.bad-3"]


def test_a_flipped_bit_costs_no_time_to_look_for_when_checkpoints_are_listed(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path)
    save(store, 10)
    flip_bit(tmp_path / "step_00000010" / "optimizer.bin")
    assert [found.problem for found in store.checkpoints()] == [None]
    [found] = store.verify()
    assert found.problem == "optimizer.bin has another SHA-256 than when it was written"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"schema": "other/1"}',
        '{"schema": "hpc.checkpoint/1"}',
        '{"schema": "hpc.checkpoint/1", "files": 3}',
        '{"schema": "hpc.checkpoint/1", "files": {"a": {"size": 3}}}',
    ],
)
def test_what_is_no_manifest_makes_no_checkpoint(tmp_path: Path, text: str) -> None:
    store = open_store(tmp_path)
    save(store, 10, 20)
    (tmp_path / "step_00000020" / MANIFEST).write_text(text)
    newest, older = store.checkpoints()
    assert (newest.step, older.problem) == (20, None)
    assert MANIFEST in str(newest.problem)


def test_only_directories_of_a_step_are_listed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert open_store(tmp_path / "none").checkpoints() == ()
    save(store, 10)
    (tmp_path / "step_00000020").write_text("a file")
    for name in ("step_30", "step_00000040.bad", "other"):
        (tmp_path / name).mkdir()
    assert steps(store) == [10]


def test_the_thread_of_a_save_does_not_keep_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = threading.Event()
    monkeypatch.setattr(publish, "_passages", {})
    monkeypatch.setattr(publish.time, "sleep", lambda _: disk.wait(60))
    monkeypatch.setenv("SARHPC_FAULT", "checkpoint.settle:1:wait")
    store = open_store(tmp_path)
    store.begin(10, write, {})
    threads = [one for one in threading.enumerate() if one.name == "checkpoint"]
    assert [thread.daemon for thread in threads] == [True]
    disk.set()
    assert store.finish(threading.TIMEOUT_MAX) is not None


@pytest.mark.parametrize(
    "point",
    [
        "rank_write", "after_rank_write", "settle", "before_manifest", "before_rename",
        "before_latest", "before_retention", "before_read",
    ],
)  # fmt: skip
def test_every_point_of_a_checkpoint_can_be_made_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    store = open_store(tmp_path)
    save(store, 10)
    monkeypatch.setattr(publish, "_passages", {})
    monkeypatch.setenv("SARHPC_FAULT", f"checkpoint.{point}:1:raise")
    with pytest.raises(HpcError, match=f"fault injected at checkpoint.{point}"):
        if point == "before_read":
            store.load(lambda path, state: None)
        else:
            save(store, 20)
