from __future__ import annotations

import os
import signal
import threading

import pytest

from hpc.signals import STOP_SIGNALS, stop_signals_ignored


def test_stop_signals_are_ignored_inside_the_block_alone() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with stop_signals_ignored():
        for number in STOP_SIGNALS:
            os.kill(os.getpid(), number)
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
    with pytest.raises(ValueError, match="once"), stop_signals_ignored():
        raise ValueError("once")
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_outside_the_main_thread_handlers_stay() -> None:
    before, found = [signal.getsignal(number) for number in STOP_SIGNALS], []

    def look() -> None:
        with stop_signals_ignored():
            found.extend(signal.getsignal(number) for number in STOP_SIGNALS)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == before
