"""A process that works keeps the memory it will ask for again."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from hpc.memory import keep_freed_memory

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
