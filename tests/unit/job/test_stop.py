"""Stop requests of one process: flags, files, deadline, and handlers given back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc.job.agreement import SingleProcess
from hpc.job.stop import (
    StopNow,
    StopReason,
    StopRequest,
    stop_signalled,
)
from hpc.signals import ignore_stop_signals
from sarhpc.training.context import MOST_URGENT


def test_only_preemption_and_deadline_requeue() -> None:
    assert [reason for reason in StopReason if reason.requeues] == [
        StopReason.DEADLINE,
        StopReason.PREEMPT,
    ]
    assert [reason for reason in StopReason if not reason.stops] == [StopReason.SAVE_FILE]


@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGUSR2, StopReason.PREEMPT), (signal.SIGTERM, StopReason.TERMINATE)],
)
def test_a_signal_is_a_reason_until_the_end(number: signal.Signals, reason: StopReason) -> None:
    with StopRequest(SingleProcess()) as stop:
        assert stop.agree() is None
        os.kill(os.getpid(), number)
        assert stop.agree() is reason
        assert stop.agree() is reason


def test_handlers_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)]
    with StopRequest(SingleProcess()) as stop:
        stop.install()
        assert signal.getsignal(signal.SIGUSR2) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)] == before


def test_a_handler_installed_earlier_is_replaced_not_called() -> None:
    called: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: called.append(number))
    try:
        with StopRequest(SingleProcess()) as stop:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert stop.agree() is StopReason.PREEMPT
        assert called == []
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_deadline_in_the_past_requeues() -> None:
    assert StopRequest(SingleProcess(), deadline=time.time() + 60).agree() is None
    assert StopRequest(SingleProcess(), deadline=time.time() - 1).agree() is StopReason.DEADLINE


def test_the_operators_word_wins(tmp_path: Path) -> None:
    (tmp_path / "STOP").touch()
    with StopRequest(SingleProcess(), tmp_path / "STOP") as stop:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert stop.agree() is StopReason.STOP_FILE


def test_what_ranks_exchanged_with_their_losses_decides_as_their_own_agreement_does(
    tmp_path: Path,
) -> None:
    stop_file, save_file = tmp_path / "STOP", tmp_path / "SAVE"
    request = StopRequest(SingleProcess(), stop_file, save_file, poll_s=0.0)
    assert request.urgency() == 0
    assert request.agreed(0) is None
    save_file.touch()
    assert request.agreed(request.urgency()) is StopReason.SAVE_FILE
    assert not save_file.exists(), "consumed"
    stop_file.touch()
    assert request.agreed(request.urgency()) is StopReason.STOP_FILE is request.agree()
    # Another rank alone knows of it.
    assert StopRequest(SingleProcess()).agreed(StopReason.TERMINATE) is StopReason.TERMINATE
    assert max(StopReason) <= MOST_URGENT


def test_files_are_looked_at_only_so_often(tmp_path: Path) -> None:
    stop = StopRequest(SingleProcess(), tmp_path / "STOP", poll_s=3600)
    assert stop.agree() is None
    (tmp_path / "STOP").touch()
    assert stop.agree() is None


def test_a_save_file_is_consumed_and_work_goes_on(tmp_path: Path) -> None:
    (tmp_path / "SAVE").touch()
    stop = StopRequest(SingleProcess(), tmp_path / "STOP", tmp_path / "SAVE")
    assert stop.agree() is StopReason.SAVE_FILE
    assert stop.agree() is None
    assert not (tmp_path / "SAVE").exists()


def test_a_worker_survives_the_signals_of_its_step() -> None:
    child = os.fork()
    if child == 0:
        ignore_stop_signals()
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_importing_the_machinery_is_light() -> None:
    modules = (
        "hpc.job.agreement",
        "hpc.job.stop",
        "hpc.job.checkpoint",
        "hpc.cluster.profile",
        "hpc.cluster.submit",
        "hpc.cluster.dask",
    )
    heavy = ("torch", "numpy", "distributed", "submitit", "omegaconf", "cryptography")
    code = f"import sys, {', '.join(modules)}; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_requests_nest_and_hand_on_what_was_signalled() -> None:
    with StopRequest(SingleProcess()) as job:
        os.kill(os.getpid(), signal.SIGUSR2)
        with StopRequest(SingleProcess()) as loop:
            assert loop.agree() is StopReason.PREEMPT
            os.kill(os.getpid(), signal.SIGTERM)
        assert job.agree() is StopReason.TERMINATE


def test_an_urgent_request_interrupts_work_that_never_asks_once() -> None:
    with StopRequest(SingleProcess(), urgent=True) as job:
        with pytest.raises(StopNow) as stop:
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(10)
        assert stop.value.reason is StopReason.PREEMPT
        os.kill(os.getpid(), signal.SIGTERM)
        assert job.agree() is StopReason.TERMINATE


def test_a_loop_that_asks_is_not_interrupted() -> None:
    with StopRequest(SingleProcess(), urgent=True), StopRequest(SingleProcess()) as loop:
        assert not stop_signalled()
        os.kill(os.getpid(), signal.SIGUSR2)
        assert loop.agree() is StopReason.PREEMPT
        assert stop_signalled()
    assert not stop_signalled()
