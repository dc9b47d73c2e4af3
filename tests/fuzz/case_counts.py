"""Running a check on many random cases that Hypothesis draws, reproduces and simplifies."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def each(count: int, check: Callable[[Random], None]) -> None:
    """Run `check` on `count` random generators, the same in each run."""

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False, note_method_calls=False))
    def cases(random: Random) -> None:
        check(random)

    cases()
