"""Memory of a process that works: how it is kept for reuse, and what is said when a GPU's is full.

glibc returns memory to the system once enough is free at the top of the heap, and maps each large
array anew; every page then costs a page fault and is zeroed. Arithmetic on CPUs frees and allocates
the same few hundred megabytes every second.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path

from hpc.errors import GpuMemoryError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h

OWN_MAPPING_BYTES = 32 << 20
"""Arrays of this size and more are mapped individually and returned at once; glibc's maximum."""
KEPT_BYTES = 1 << 30
"""Maximum free memory kept at the top of the heap."""


def keep_freed_memory() -> bool:
    """Whether malloc now keeps freed memory, up to `KEPT_BYTES`; False without glibc.

    Source of the parameters: mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    parameters = ((_M_MMAP_THRESHOLD, OWN_MAPPING_BYTES), (_M_TRIM_THRESHOLD, KEPT_BYTES))
    return all(mallopt(name, value) == 1 for name, value in parameters)


def node_memory_bytes() -> int:
    """Memory that this process may use: of the machine, its control groups, and its Slurm job."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_group_limits()]
    with contextlib.suppress(ValueError):
        # MB; 0 asks for all of a node.
        found.append((int(os.environ.get("SLURM_MEM_PER_NODE", "")) << 20) or found[0])
    return min(found)


def _group_limits(
    membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> list[int]:
    """Limits of the control groups that this process is in, of version 1 and 2."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    found: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        group = mount / controllers / path.lstrip("/")
        for folder in (group, *group.parents):
            # Where there is no such group, or no limit (`max`), there is no number.
            with contextlib.suppress(OSError, ValueError):
                if folder.is_relative_to(mount):
                    found.append(int((folder / name).read_text()))
    return found


ALLOCATOR, FORMER_ALLOCATOR = "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"
"""Variables that configure torch's allocator for GPUs; the second one before torch 2.9."""


def use_expandable_segments(environment: MutableMapping[str, str] | None = None) -> None:
    """Let torch grow its segments of GPU memory, which fragments it less; before torch is imported.

    What the user or the profile has set stays.
    """
    env = os.environ if environment is None else environment
    if ALLOCATOR in env or FORMER_ALLOCATOR in env:
        return
    try:
        major, minor = importlib.metadata.version("torch").split(".")[:2]
    except importlib.metadata.PackageNotFoundError:
        return
    name = ALLOCATOR if (int(major), int(minor)) >= (2, 9) else FORMER_ALLOCATOR
    env[name] = "expandable_segments:True"


@contextlib.contextmanager
def gpu_memory_advised(advice: Callable[[], str]) -> Iterator[None]:
    """Report a full GPU as GpuMemoryError, with what to do about it.

    Args:
        advice: gives the settings to lower, and estimates where there are any.

    Raises:
        GpuMemoryError: instead of torch's OutOfMemoryError.
    """
    try:
        yield
    except RuntimeError as error:
        # By name: torch is not imported here, and its class has two homes.
        if type(error).__name__ != "OutOfMemoryError":
            raise
        said = str(error).partition(". ")[0]
        raise GpuMemoryError(f"the memory of the GPU is full ({said}): {advice()}") from error
