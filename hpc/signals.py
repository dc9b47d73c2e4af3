"""The signals by which Slurm asks a job to stop, and helper processes that ignore them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
"""Before the time limit or a preemption; on preemption at many sites, and from `scancel`."""


def ignore_stop_signals(worker: int = 0) -> None:
    """Make this helper process ignore SIGUSR2 and SIGTERM; its rank decides when it ends.

    Usable as `DataLoader(worker_init_fn=...)`, which passes the worker's number, with persistent
    workers that the rank shuts down itself.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_signals_ignored() -> Iterator[None]:
    """Ignore SIGUSR2 and SIGTERM inside the block; outside the main thread this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(STOP_SIGNALS, before, strict=True):
            signal.signal(number, handler)
