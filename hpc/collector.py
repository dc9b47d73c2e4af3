"""Fewer garbage collections for processes that import large libraries.

The libraries of a training are 800,000 permanent objects. Python scans all of them several times
during import, and twice more at exit: two seconds per rank on a slow core, while the other ranks
wait and the partition's grace time elapses.
"""

from __future__ import annotations

import atexit
import gc

_YOUNG = 10_000
"""Allocations that trigger a collection; imports exceed Python's default of 700 very often."""


def relax_gc() -> None:
    """Collect less often from now on, and skip live objects in the collection at exit."""
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
    # Handlers registered later run earlier, so other exit handlers still see a working collector.
    atexit.register(gc.freeze)
