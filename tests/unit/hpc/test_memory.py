"""A process that works keeps the memory it will ask for again."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from hpc import memory
from hpc.memory import keep_freed_memory, node_memory_bytes

_ARRAYS, _BYTES = 40, 8 << 20


def count_page_faults() -> int:
    """Pages that `_ARRAYS` arrays, two at a time, took fresh from the system."""
    # glibc learns to keep one array that is mapped alone; what it trims are several at once.
    before = 0
    for turn in range(_ARRAYS):
        held = [bytearray(_BYTES) for _ in range(8)]
        del held
        if turn == 0:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


if __name__ == "__main__":
    if "keep" in sys.argv:
        assert keep_freed_memory()
    print(count_page_faults())


def _faults(*words: str) -> int:
    # A test that lends Dask workers in this process has left what its nannies are told.
    plain = {name: told for name, told in os.environ.items() if not name.startswith("MALLOC_")}
    found = subprocess.run(
        [sys.executable, __file__, *words], check=True, capture_output=True, text=True, env=plain
    )
    return int(found.stdout)


@pytest.mark.slow
def test_arrays_that_come_and_go_take_their_pages_once() -> None:
    pages = _ARRAYS * 8 * _BYTES // resource.getpagesize()
    assert _faults() > pages / 2
    assert _faults("keep") < pages / 100


def test_the_memory_of_a_process_is_that_of_its_control_group_and_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/job_1/step_0\n3:memory:/job_2\n4:cpu:/job_3\n")
    for file, text in (
        ("job_1/memory.max", "4000"), ("job_1/step_0/memory.max", "max"),
        ("memory/job_2/memory.limit_in_bytes", "3000"), ("cpu/job_3/memory.max", "1"),
    ):  # fmt: skip
        path = tmp_path / "mount" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert sorted(memory._group_limits(membership, tmp_path / "mount")) == [3000, 4000]
    assert memory._group_limits(tmp_path / "none") == []
    assert 2**28 < node_memory_bytes() < 2**50
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "64")
    assert node_memory_bytes() == 64 << 20
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")
    assert node_memory_bytes() > 64 << 20, "all of the node"
