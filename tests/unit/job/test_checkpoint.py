"""The checkpoint store on one process: whole or absent, newest whole one first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hpc import publish
from hpc.errors import ConfigError, HpcError, LeaseLostError, TransientError
from hpc.job.agreement import SingleProcess
from hpc.job.checkpoint import CheckpointError, CheckpointStore
from hpc.job.manifest import MANIFEST


def open_store(root: Path, **options: Any) -> CheckpointStore:
    return CheckpointStore(root, SingleProcess(), attempt=0, **options)


def write(directory: Path) -> None:
    (directory / "unet").mkdir()
    (directory / "unet" / "weights.bin").write_bytes(bytes(range(256)) * 8)
    (directory / "optimizer.bin").write_bytes(b"moments" * 100)


def save(store: CheckpointStore, *steps: int) -> None:
    for step in steps:
        store.save(step, write, {"samples": step * 4})


def load_step(store: CheckpointStore) -> int | None:
    seen: list[Path] = []
    state = store.load(lambda path, state: seen.append(path))
    if state is None:
        return None
    assert seen[-1] == store.root / f"step_{state['step']:08d}"
    return int(state["step"])


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return open_store(tmp_path / "checkpoints")


def set_fault(monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    monkeypatch.setattr(publish, "_passages", {})
    monkeypatch.setenv("SARHPC_FAULT", spec)


def test_an_empty_store_loads_nothing(store: CheckpointStore) -> None:
    assert load_step(store) is None
    assert store.checkpoints() == ()


def test_what_was_saved_comes_back_with_step_and_world_size(store: CheckpointStore) -> None:
    path = store.save(120, write, {"samples": 480, "keys": ["00000100007"]})
    read: list[bytes] = []
    state = store.load(
        lambda path, state: read.append((path / "unet" / "weights.bin").read_bytes())
    )
    assert state == {"samples": 480, "keys": ["00000100007"], "step": 120, "world_size": 1}
    assert read == [bytes(range(256)) * 8]
    assert names(store.root) == {path.name, "latest"}
    assert (store.root / "latest").read_text() == "step_00000120\n"


def test_the_listing_tells_step_size_and_health(store: CheckpointStore) -> None:
    save(store, 10, 20)
    newest, older = store.checkpoints()
    assert (newest.step, older.step) == (20, 10)
    assert newest.manifest is not None
    assert newest.manifest.bytes == 2048 + 700
    assert newest.problem is None


def test_saving_the_same_step_again_keeps_the_whole_one(store: CheckpointStore) -> None:
    save(store, 10)
    before = (store.root / "step_00000010" / MANIFEST).stat().st_mtime_ns
    save(store, 10)
    assert (store.root / "step_00000010" / MANIFEST).stat().st_mtime_ns == before


def truncate(directory: Path) -> None:
    (directory / "optimizer.bin").write_bytes(b"moments")


def remove(directory: Path) -> None:
    (directory / "unet" / "weights.bin").unlink()


def flip_bit(directory: Path) -> None:
    content = bytearray((directory / "unet" / "weights.bin").read_bytes())
    content[1000] ^= 4
    (directory / "unet" / "weights.bin").write_bytes(content)


def lose_manifest(directory: Path) -> None:
    (directory / MANIFEST).unlink()


def cut_manifest(directory: Path) -> None:
    text = (directory / MANIFEST).read_text()
    (directory / MANIFEST).write_text(text[: len(text) // 2])


@pytest.mark.parametrize("damage", [truncate, remove, flip_bit, lose_manifest, cut_manifest])
def test_a_damaged_newest_is_set_aside_and_the_one_before_taken(
    store: CheckpointStore, damage: Any
) -> None:
    save(store, 10, 20)
    damage(store.root / "step_00000020")
    assert load_step(store) == 10
    assert names(store.root) == {"step_00000010", "step_00000020.bad", "latest"}
    assert (store.root / "latest").read_text() == "step_00000010\n"
    save(store, 20)
    assert load_step(store) == 20


def test_a_flipped_bit_shows_only_in_a_deep_verification(store: CheckpointStore) -> None:
    save(store, 10)
    flip_bit(store.root / "step_00000010")
    assert [found.problem for found in store.verify(deep=False)] == [None]
    (found,) = store.verify()
    assert found.problem is not None
    assert "unet/weights.bin" in found.problem


def test_a_damaged_checkpoint_in_the_way_of_a_save_steps_aside(store: CheckpointStore) -> None:
    save(store, 10)
    truncate(store.root / "step_00000010")
    save(store, 10)
    assert load_step(store) == 10
    assert "step_00000010.bad" in names(store.root)


def test_an_unreadable_checkpoint_is_set_aside_once_an_older_one_is_read(
    store: CheckpointStore,
) -> None:
    save(store, 10, 20)

    def read(path: Path, state: Mapping[str, Any]) -> None:
        if state["step"] == 20:
            raise RuntimeError("optimizer state does not fit")

    state = store.load(read)
    assert state is not None
    assert state["step"] == 10
    assert "step_00000020.bad" in names(store.root)


def test_three_unreadable_checkpoints_end_in_an_error_and_stay(tmp_path: Path) -> None:
    store = open_store(tmp_path, keep_last=5)
    save(store, 10, 20, 30, 40)
    tried: list[int] = []

    def read(path: Path, state: Mapping[str, Any]) -> None:
        tried.append(state["step"])
        raise RuntimeError("unexpected key")

    with pytest.raises(CheckpointError, match=r"step_00000040 \(rank 0: RuntimeError: unexpected"):
        store.load(read)
    assert tried == [40, 30, 20]
    assert [found.step for found in store.checkpoints()] == [40, 30, 20, 10]


def test_a_configuration_error_while_reading_blames_no_checkpoint(store: CheckpointStore) -> None:
    save(store, 10, 20)

    def read(path: Path, state: Mapping[str, Any]) -> None:
        raise ConfigError("world size 1 was 4")

    with pytest.raises(ConfigError, match="world size"):
        store.load(read)
    assert load_step(store) == 20


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_over(
    store: CheckpointStore,
) -> None:
    save(store, 10)
    truncate(store.root / "step_00000010")
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"step_00000010.bad \(damaged\)"):
            load_step(store)


ENOSPC_POINTS = [
    "checkpoint.rank_write",
    "checkpoint.after_rank_write",
    "checkpoint.before_manifest",
    "publish.before_fsync",
    "checkpoint.before_rename",
    "publish.directory_before_rename",
    "checkpoint.before_latest",
]


@pytest.mark.parametrize("point", ENOSPC_POINTS)
def test_a_full_disk_leaves_older_checkpoints_whole(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    save(store, 10, 20)
    set_fault(monkeypatch, f"{point}:1:enospc")
    with pytest.raises(TransientError, match=r"step_00000030.*free space"):
        save(store, 30)
    monkeypatch.delenv("SARHPC_FAULT")
    steps = [found.step for found in store.verify() if found.problem is None]
    assert steps[-2:] == [20, 10]
    assert not [name for name in names(store.root) if name.startswith(".")]
    save(store, 30)
    assert load_step(store) == 30


def test_an_empty_or_missing_file_is_no_checkpoint(store: CheckpointStore) -> None:
    with pytest.raises(TransientError, match=r"empty files: weights\.bin"):
        store.save(10, lambda path: (path / "weights.bin").touch(), {})
    with pytest.raises(TransientError, match=r"optimizer\.bin"):
        store.save(10, lambda path: [path / "optimizer.bin"], {})
    with pytest.raises(TransientError, match="no file"):
        store.save(10, lambda path: None, {})
    assert names(store.root) == set()


def test_retention_keeps_the_newest_and_the_milestones(tmp_path: Path) -> None:
    store = open_store(tmp_path, keep_last=2, keep_every=20)
    save(store, 10, 20, 30, 40, 50, 60)
    assert [found.step for found in store.checkpoints()] == [60, 50, 40, 20]


def test_the_best_checkpoint_stays_until_another_is_the_best(tmp_path: Path) -> None:
    best = [10]
    store = open_store(tmp_path, also_keep=lambda: best)
    save(store, 10, 20, 30, 40)
    assert [found.step for found in store.checkpoints()] == [40, 30, 10]
    best[:] = [50]
    save(store, 50)
    assert [found.step for found in store.checkpoints()] == [50, 40]


def test_retention_counts_only_whole_checkpoints(store: CheckpointStore) -> None:
    save(store, 10, 20)
    truncate(store.root / "step_00000020")
    save(store, 30)
    assert (store.root / "step_00000010").is_dir()
    truncate(store.root / "step_00000030")
    assert load_step(store) == 10


@pytest.mark.parametrize("options", [{"keep_last": 1}, {"keep_last": 0}, {"keep_every": 0}])
def test_a_retention_without_a_fallback_is_refused(tmp_path: Path, options: Any) -> None:
    with pytest.raises(ConfigError, match="keep_"):
        open_store(tmp_path, **options)


def test_leftovers_of_killed_attempts_are_swept(store: CheckpointStore) -> None:
    save(store, 10)
    for leftover in (".staging-00000020-0", ".trash-step_00000005-0"):
        (store.root / leftover).mkdir()
        (store.root / leftover / "part.bin").write_bytes(b"x")
    assert load_step(store) == 10
    assert names(store.root) == {"step_00000010", "latest"}


def test_a_foreign_manifest_is_not_believed(store: CheckpointStore) -> None:
    save(store, 10)
    (store.root / "step_00000010").rename(store.root / "step_00000099")
    with pytest.raises(HpcError, match="step_00000099"):
        load_step(store)


def test_who_lost_the_lease_commits_loads_and_removes_nothing(tmp_path: Path) -> None:
    def guard() -> None:
        if lost:
            raise LeaseLostError("process 7 on node-7 has it")

    lost = list[int]()
    store = open_store(tmp_path, guard=guard)
    save(store, 1)
    store.begin(2, write, {})
    lost.append(1)
    other = tmp_path / ".staging-00000002-1"
    other.mkdir()
    with pytest.raises(LeaseLostError, match=r"was not saved.*process 7"):
        store._finish()
    with pytest.raises(LeaseLostError, match="process 7"):
        save(store, 3)
    with pytest.raises(LeaseLostError, match="process 7"):
        load_step(store)
    assert names(tmp_path) == {"step_00000001", "latest", other.name}
