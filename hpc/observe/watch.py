"""Watching a run: its status in place on a terminal, elsewhere one `key=value` line at a time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc.observe.status import RunStatus
from hpc.observe.view import Line, key_values, rich_text, status_lines

if TYPE_CHECKING:
    from rich.console import Console

MAX_COLUMNS = 120
POLL_S = 0.5
"""Interval between two looks at whether the work has ended, s."""


def never() -> bool:
    """False, for work whose end shows in the status alone."""
    return False


@dataclass(frozen=True)
class Watching:
    """What is watched, how often, and when it is over."""

    read_status: Callable[[], RunStatus]
    every_s: float
    """Seconds between two looks at the status."""
    is_over: Callable[[RunStatus], bool] = lambda status: status.complete
    """Whether a status is the last one."""
    has_ended: Callable[[], bool] = never
    """Whether the work has ended, polled between two looks; one more look follows."""
    hint: str = "Ctrl-C ends this view"


def watch(watching: Watching) -> RunStatus:
    """Show the status until the work has ended; returns the last one.

    Raises:
        KeyboardInterrupt: Ctrl-C; the terminal is left in order.
    """
    with _display(watching) as show:
        while True:
            ended = watching.has_ended()
            status = watching.read_status()
            show(status)
            if ended or watching.is_over(status):
                return status
            _sleep(watching)


def _sleep(watching: Watching) -> None:
    until = time.monotonic() + watching.every_s
    while (left := until - time.monotonic()) > 0 and not watching.has_ended():
        time.sleep(min(left, POLL_S))


@contextmanager
def _display(watching: Watching) -> Iterator[Callable[[RunStatus], None]]:
    """Shows one status after the other."""
    if not sys.stdout.isatty():
        yield lambda status: print(key_values(status), flush=True)
        return
    from rich.console import Console, Group
    from rich.live import Live

    # The view moves the cursor; the texts in it do not.
    screen = sys.__stderr__ if sys.stdout is sys.stderr else sys.__stdout__
    console = Console(highlight=False, file=screen)
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:

        def show(status: RunStatus) -> None:
            """Draw the view of a status in place of the one before."""
            stamp = f"{time.strftime('%H:%M:%S')}, every {watching.every_s:.3g} s; {watching.hint}"
            lines = [*_fitting(status, console), Line(stamp, stamp, "dim")]
            live.update(Group(*map(rich_text, lines)), refresh=True)

        yield show


def _fitting(status: RunStatus, console: Console) -> list[Line]:
    """The lines of a status, fewer of them where the terminal is not high enough.

    What has scrolled off the top cannot be drawn again, and would stay there once for each look.
    """
    width, most = min(console.width, MAX_COLUMNS), console.height - 2
    lines = status_lines(status, width)
    if len(lines) > most:
        lines = status_lines(status, width, brief=True)
    return lines if len(lines) <= most else [*lines[: most - 1], Line("  ...")]
