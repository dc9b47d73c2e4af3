"""Checkpoints of two real ranks: saved together or not at all, loaded together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from gloo_ranks import run_ranks

from hpc.job.agreement import RankGroup
from hpc.job.checkpoint import CheckpointStore


def open_store(ranks: RankGroup, directory: Path) -> CheckpointStore:
    return CheckpointStore(directory / "checkpoints", ranks, attempt=1)


def save(store: CheckpointStore, rank: int, step: int) -> str:
    def write(staging: Path) -> list[Path]:
        part = staging / f"zero_rank_{rank}.bin"
        part.write_bytes(f"rank {rank} step {step}".encode() * 50)
        return [part]

    return store.save(step, write, {"samples": step * 8}).name


def load(store: CheckpointStore, rank: int) -> int | None:
    def read(path: Path, state: Mapping[str, Any]) -> None:
        expected = f"rank {rank} step {state['step']}".encode() * 50
        if (path / f"zero_rank_{rank}.bin").read_bytes() != expected:
            raise RuntimeError("another rank's part")

    state = store.load(read)
    return None if state is None else int(state["step"])


def save_twice(ranks: RankGroup, directory: Path) -> Any:
    store = open_store(ranks, directory)
    return [save(store, ranks.rank, 10), save(store, ranks.rank, 20)]


def load_newest(ranks: RankGroup, directory: Path) -> Any:
    return load(open_store(ranks, directory), ranks.rank)


def test_all_ranks_save_and_load_the_same_step(tmp_path: Path) -> None:
    assert run_ranks(save_twice, tmp_path) == [["step_00000010", "step_00000020"]] * 2
    assert run_ranks(load_newest, tmp_path) == [20, 20]


class FaultyThirdSave:
    """Save steps 10 and 20, then step 30 with a fault on one rank."""

    def __init__(self, rank: int, point: str, action: str) -> None:
        self.rank, self.fault = rank, f"{point}:3:{action}"

    def __call__(self, ranks: RankGroup, directory: Path) -> Any:
        if ranks.rank == self.rank:
            os.environ["SARHPC_FAULT"] = self.fault
        store = open_store(ranks, directory)
        return [save(store, ranks.rank, step) for step in (10, 20, 30)]


KILLS = [
    (1, "checkpoint.rank_write", 20),
    (1, "checkpoint.after_rank_write", 20),
    (0, "checkpoint.rank_write", 20),
    (0, "checkpoint.before_manifest", 20),
    (0, "checkpoint.before_rename", 20),
    (0, "publish.directory_before_rename", 20),
    (0, "publish.directory_after_rename", 30),
    (0, "checkpoint.before_latest", 30),
    (0, "checkpoint.before_retention", 30),
]


@pytest.mark.parametrize(("rank", "point", "expected"), KILLS)
def test_after_a_kill_while_saving_all_ranks_load_the_newest_whole_one(
    tmp_path: Path, rank: int, point: str, expected: int
) -> None:
    results = run_ranks(FaultyThirdSave(rank, point, "kill"), tmp_path)
    assert results[rank] is None
    assert results[1 - rank]["error"] == "TransientError"
    assert run_ranks(load_newest, tmp_path) == [expected, expected]


@pytest.mark.parametrize(
    ("rank", "point"), [(1, "checkpoint.rank_write"), (0, "checkpoint.before_manifest")]
)
def test_a_full_disk_on_one_rank_is_a_transient_error_on_all(
    tmp_path: Path, rank: int, point: str
) -> None:
    results = run_ranks(FaultyThirdSave(rank, point, "enospc"), tmp_path)
    for result in results:
        assert result["error"] == "TransientError"
        assert f"rank {rank}" in result["text"]
    assert not list((tmp_path / "checkpoints").glob(".staging-*"))
    assert run_ranks(load_newest, tmp_path) == [20, 20]


def load_when_rank_1_cannot_read(ranks: RankGroup, directory: Path) -> Any:
    tried: list[int] = []

    def read(path: Path, state: Mapping[str, Any]) -> None:
        tried.append(state["step"])
        if ranks.rank == 1 and state["step"] == 20:
            raise RuntimeError("unexpected end of file")

    state = open_store(ranks, directory).load(read)
    assert state is not None
    return [tried, state["step"]]


def test_when_one_rank_cannot_read_all_take_the_one_before(tmp_path: Path) -> None:
    run_ranks(save_twice, tmp_path)
    assert run_ranks(load_when_rank_1_cannot_read, tmp_path) == [[[20, 10], 10]] * 2
    assert (tmp_path / "checkpoints" / "step_00000020.bad").is_dir()


def load_on_one_process(ranks: RankGroup, directory: Path) -> Any:
    seen: list[int] = []
    open_store(ranks, directory).load(lambda path, state: seen.append(state["world_size"]))
    return seen


def test_another_world_size_is_told_to_the_reader(tmp_path: Path) -> None:
    run_ranks(save_twice, tmp_path)
    assert run_ranks(load_on_one_process, tmp_path, world=1) == [[2]]


def clash(ranks: RankGroup, directory: Path) -> Any:
    def write(staging: Path) -> list[Path]:
        (staging / "weights.bin").write_bytes(b"same name")
        return [staging / "weights.bin"]

    return open_store(ranks, directory).save(1, write, {}).name


def test_two_ranks_claiming_one_file_are_refused(tmp_path: Path) -> None:
    for result in run_ranks(clash, tmp_path):
        assert "same file" in result["text"]
