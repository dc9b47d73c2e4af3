"""Malloc settings that keep freed memory in the process for reuse.

glibc returns memory to the system once enough is free at the top of the heap, and maps each large
array anew; every page then costs a page fault and is zeroed. Arithmetic on CPUs frees and allocates
the same few hundred megabytes every second.
"""

from __future__ import annotations

import ctypes

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
