"""The garbage collector leaves alone what lives as long as the process.

The libraries of a training are 800,000 objects that stay. Python walks all of them several times
while they are imported, and twice more before it lets the process go: two seconds of each rank on
a slow core, in which the others wait and the partition's grace runs.
"""

from __future__ import annotations

import atexit
import gc

_YOUNG = 10_000
"""Objects made since a collection until the next one; Python's own 700 are soon made by imports."""


def relax_gc() -> None:
    """Collect less often from now on, and at the end of the process nothing that it still holds."""
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
    # What was registered later runs earlier: nothing that tidies up is kept from doing so.
    atexit.register(gc.freeze)
