"""A full GPU ends the work for good, with what to lower; and torch is asked to fragment less."""

from __future__ import annotations

import os

import pytest
import torch

from hpc.errors import GpuMemoryError
from hpc.job.requeue import is_transient
from hpc.memory import gpu_memory_advised, use_expandable_segments

_SAID = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.25 GiB."


def test_full_gpu_is_reported_with_advice_and_is_not_tried_again() -> None:
    with (
        pytest.raises(
            GpuMemoryError, match=r"CUDA out of memory.*lower train\.micro_batch"
        ) as found,
        gpu_memory_advised(lambda: "lower train.micro_batch"),
    ):
        raise torch.OutOfMemoryError(_SAID)
    assert not is_transient(found.value)


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="singular"), gpu_memory_advised(lambda: ""):
        raise RuntimeError("singular")


def test_allocator_grows_its_segments_unless_somebody_configured_it() -> None:
    plain: dict[str, str] = {}
    use_expandable_segments(plain)
    assert plain == {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        own = {name: "max_split_size_mb:512"}
        use_expandable_segments(own)
        assert own == {name: "max_split_size_mb:512"}


def test_variable_is_the_one_that_this_torch_reads() -> None:
    folder = os.path.dirname(torch.__file__)
    with open(f"{folder}/lib/libc10.so", "rb") as library:
        assert b"PYTORCH_ALLOC_CONF" in library.read()
