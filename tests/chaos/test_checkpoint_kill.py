"""SIGKILL at random moments of a saving loop: a whole checkpoint is always there to load."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc.job.agreement import SingleProcess
from hpc.job.checkpoint import CheckpointStore

SAVE_FOR_EVER = """
import itertools, sys
from pathlib import Path
from hpc.job.agreement import SingleProcess
from hpc.job.checkpoint import CheckpointStore

store = CheckpointStore(Path(sys.argv[1]), SingleProcess(), attempt=int(sys.argv[2]))
state = store.load(lambda path, state: None)
def write(staging):
    for part in range(4):
        (staging / f"part_{part}.bin").write_bytes(bytes([part + 1]) * 200_000)
for step in itertools.count((state or {"step": 0})["step"] + 1):
    store.save(step, write, {})
    print(step, flush=True)
"""


def newest_whole(root: Path) -> int:
    store = CheckpointStore(root, SingleProcess(), attempt=0)
    state = store.load(lambda path, state: None)
    assert state is not None
    return int(state["step"])


def kill_rounds(root: Path, rounds: int) -> int:
    """Kill a writer of checkpoints `rounds` times; the newest step that is whole in the end."""
    chance = random.Random(7)
    reached = 0
    for attempt in range(rounds):
        with subprocess.Popen(
            [sys.executable, "-c", SAVE_FOR_EVER, str(root), str(attempt)],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            announced = int(process.stdout.readline())
            time.sleep(chance.uniform(0, 0.05))
            process.kill()
            announced = max([announced, *map(int, process.stdout.read().split())])
        assert announced > reached
        reached = newest_whole(root)
        assert reached in (announced, announced + 1)
        assert not list(root.glob("*.bad*"))
    return reached


def test_twenty_kills_lose_no_announced_checkpoint(tmp_path: Path) -> None:
    assert kill_rounds(tmp_path / "checkpoints", 20) >= 20


@pytest.mark.long
def test_two_hundred_kills_lose_no_announced_checkpoint(tmp_path: Path) -> None:
    assert kill_rounds(tmp_path / "checkpoints", 200) >= 200
