"""Memory that was freed stays with the process that will ask for it again.

glibc gives memory back to the system once so much is free at the top of the heap, and asks for each
large array anew; every page then comes in by a fault and filled with zeros. Arithmetic on CPUs
frees and takes the same few hundred megabytes a second.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h

OWN_MAPPING_BYTES = 32 << 20
"""Arrays from this size on are mapped one by one and given back at once; the most glibc takes."""
KEPT_BYTES = 1 << 30
"""Most free memory at the top of the heap that is kept."""


def keep_freed_memory() -> bool:
    """Whether malloc of this process now keeps what is freed, up to `KEPT_BYTES`; not so off glibc.

    Source of the parameters: mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    told = ((_M_MMAP_THRESHOLD, OWN_MAPPING_BYTES), (_M_TRIM_THRESHOLD, KEPT_BYTES))
    return all(mallopt(name, value) == 1 for name, value in told)
