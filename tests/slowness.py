"""How slow the machine is now: seconds of a test hold for a calm one, times this."""

from __future__ import annotations

import time

_LOOPS = 2_000_000
_CALM_S = 0.06
"""What the loop takes on a core of a calm machine, where the seconds in tests were chosen."""


def slowness() -> float:
    """At least 1: a slow core and busy neighbours stretch the loop like the work of a test."""
    seconds = []
    for _ in range(3):
        clock = time.perf_counter()
        for _ in range(_LOOPS):
            pass
        seconds.append(time.perf_counter() - clock)
    return max(1.0, min(seconds) / _CALM_S)
