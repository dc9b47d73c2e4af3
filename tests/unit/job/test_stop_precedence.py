"""Which reason wins when several come, in whatever order, and who looks at the files."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from hpc.job.agreement import SingleProcess
from hpc.job.stop import StopNow, StopReason, StopRequest, stop_signalled


class OtherRank:
    """A rank of two; what the others say is told beforehand, and what it says is written down."""

    world = 2

    def __init__(self, others: int = 0, rank: int = 1) -> None:
        self.rank = rank
        self.others = others
        self.offered: list[int] = []

    def maximum(self, value: int) -> int:
        self.offered.append(value)
        return max(value, self.others)

    def any(self, flag: bool) -> bool:
        return flag


@pytest.mark.parametrize(
    "order", [(signal.SIGTERM, signal.SIGUSR2), (signal.SIGUSR2, signal.SIGTERM)]
)
def test_being_told_to_end_outweighs_preemption_in_either_order(
    order: tuple[signal.Signals, signal.Signals],
) -> None:
    with StopRequest(SingleProcess()) as stop:
        for number in order:
            os.kill(os.getpid(), number)
        assert stop.agree() is StopReason.TERMINATE


@pytest.mark.parametrize("outer", [signal.SIGTERM, signal.SIGUSR2])
@pytest.mark.parametrize("inner", [signal.SIGTERM, signal.SIGUSR2])
def test_nested_requests_keep_the_weightier_reason_both_ways(
    outer: signal.Signals, inner: signal.Signals
) -> None:
    wins = StopReason.TERMINATE if signal.SIGTERM in (outer, inner) else StopReason.PREEMPT
    with StopRequest(SingleProcess()) as job:
        os.kill(os.getpid(), outer)
        with StopRequest(SingleProcess()) as loop:
            os.kill(os.getpid(), inner)
            assert loop.agree() is wins
        assert job.agree() is wins


def test_the_reasons_outweigh_each_other_in_the_documented_order() -> None:
    order = ("SAVE_FILE", "DEADLINE", "PREEMPT", "TERMINATE", "STOP_FILE")
    assert [reason.name for reason in sorted(StopReason)] == list(order)
    assert [int(reason) for reason in sorted(StopReason)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("pair", itertools.combinations(StopReason, 2))
def test_of_two_ranks_the_weightier_reason_wins(pair: tuple[StopReason, StopReason]) -> None:
    assert StopRequest(OtherRank(others=max(pair))).agree() is max(pair)


@pytest.mark.parametrize(("late_s", "reason"), [(-60.0, None), (1.0, StopReason.DEADLINE)])
def test_a_deadline_is_looked_at_on_every_rank(late_s: float, reason: StopReason | None) -> None:
    assert StopRequest(OtherRank(), deadline=time.time() - late_s).agree() is reason


def test_the_moment_of_the_deadline_is_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert StopRequest(SingleProcess(), deadline=1000.0).agree() is StopReason.DEADLINE
    assert StopRequest(SingleProcess(), deadline=1000.5).agree() is None


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_clock_that_is_set_moves_no_deadline(
    monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    near = StopRequest(SingleProcess(), deadline=1000.05)
    far = StopRequest(SingleProcess(), deadline=1060.0)
    now[0] += jump_s
    assert far.agree() is None
    # A loop that is entered now installs a request of its own with what is left.
    assert StopRequest(SingleProcess(), deadline=far.deadline).agree() is None
    time.sleep(0.06)
    assert near.agree() is StopReason.DEADLINE
    assert StopRequest(SingleProcess(), deadline=near.deadline).agree() is StopReason.DEADLINE


@pytest.mark.parametrize("urgent", [False, True])
@pytest.mark.parametrize(
    ("left_s", "reason"),
    [(None, StopReason.PREEMPT), (70, StopReason.PREEMPT), (50, StopReason.DEADLINE),
     (-1, StopReason.DEADLINE)],
)  # fmt: skip
def test_slurms_signal_before_the_time_limit_is_no_preemption(
    left_s: float | None, reason: StopReason, urgent: bool
) -> None:
    ends = None if left_s is None else time.time() + left_s
    with StopRequest(SingleProcess(), deadline=ends, urgent=urgent) as stop:
        if not urgent:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert stop.agree() is reason
            return
        with pytest.raises(StopNow) as stopped:
            os.kill(os.getpid(), signal.SIGUSR2)
        assert stopped.value.reason is reason


def test_a_termination_outweighs_the_deadline_it_comes_with() -> None:
    with StopRequest(SingleProcess(), deadline=time.time() - 1) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.agree() is StopReason.TERMINATE


def test_rank_0_alone_looks_at_the_files(tmp_path: Path) -> None:
    (tmp_path / "STOP").touch()
    (tmp_path / "SAVE").touch()
    ranks = OtherRank()
    stop = StopRequest(ranks, tmp_path / "STOP", tmp_path / "SAVE", poll_s=0)
    assert stop.agree() is None
    assert ranks.offered == [0]
    ranks.others = StopReason.SAVE_FILE
    assert stop.agree() is StopReason.SAVE_FILE
    assert (tmp_path / "SAVE").exists(), "rank 0 removes it"


def test_a_stop_file_outweighs_a_save_file_and_stays(tmp_path: Path) -> None:
    (tmp_path / "STOP").touch()
    (tmp_path / "SAVE").touch()
    stop = StopRequest(SingleProcess(), tmp_path / "STOP", tmp_path / "SAVE", poll_s=0)
    assert stop.agree() is StopReason.STOP_FILE
    assert (tmp_path / "STOP").exists()
    assert not (tmp_path / "SAVE").exists()


def test_a_stop_file_that_is_taken_back_stops_nobody(tmp_path: Path) -> None:
    stop = StopRequest(SingleProcess(), tmp_path / "STOP", poll_s=0)
    (tmp_path / "STOP").touch()
    assert stop.agree() is StopReason.STOP_FILE
    (tmp_path / "STOP").unlink()
    assert stop.agree() is None


def test_a_granted_save_is_followed_by_a_look_at_once(tmp_path: Path) -> None:
    (tmp_path / "SAVE").touch()
    stop = StopRequest(SingleProcess(), tmp_path / "STOP", tmp_path / "SAVE", poll_s=3600)
    assert stop.agree() is StopReason.SAVE_FILE
    (tmp_path / "STOP").touch()
    assert stop.agree() is StopReason.STOP_FILE


def test_files_are_looked_at_again_after_the_asked_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    stop = StopRequest(SingleProcess(), tmp_path / "STOP", poll_s=10)
    assert stop.agree() is None
    (tmp_path / "STOP").touch()
    clock[0] = 109.0
    assert stop.agree() is None
    clock[0] = 110.0
    assert stop.agree() is StopReason.STOP_FILE


def test_an_urgent_request_interrupts_once_and_keeps_what_came_later() -> None:
    with StopRequest(SingleProcess(), urgent=True) as job:
        with pytest.raises(StopNow) as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        assert stop.value.reason is StopReason.TERMINATE
        os.kill(os.getpid(), signal.SIGUSR2)
        assert job.agree() is StopReason.TERMINATE
        assert stop_signalled()


def test_a_request_is_not_stopped_by_the_deadline_alone_in_the_eyes_of_others() -> None:
    with StopRequest(SingleProcess(), deadline=time.time() - 1) as stop:
        assert stop.agree() is StopReason.DEADLINE
        assert not stop_signalled(), "nobody has signalled"
        assert stop.deadline is not None


def test_files_are_looked_at_once_a_second_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    stop = StopRequest(SingleProcess(), tmp_path / "STOP")
    assert stop.agree() is None
    (tmp_path / "STOP").touch()
    clock[0] = 100.9
    assert stop.agree() is None
    clock[0] = 101.0
    assert stop.agree() is StopReason.STOP_FILE


def test_without_files_or_signals_or_deadline_nobody_stops() -> None:
    for rank in (0, 1):
        ranks = OtherRank(rank=rank)
        assert StopRequest(ranks).agree() is None
        assert ranks.offered == [0]


def test_another_thread_cannot_take_the_signals_over() -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop = StopRequest(SingleProcess())
    thread = threading.Thread(target=stop.install)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
    stop.uninstall()
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_handler_of_before_is_given_back_whatever_it_was() -> None:
    def own(number: int, frame: object) -> None:
        pass

    before = signal.signal(signal.SIGTERM, own)
    try:
        for handler in (own, signal.SIG_IGN, signal.SIG_DFL):
            signal.signal(signal.SIGTERM, handler)
            with StopRequest(SingleProcess()):
                assert signal.getsignal(signal.SIGTERM) != handler
            assert signal.getsignal(signal.SIGTERM) == handler
    finally:
        signal.signal(signal.SIGTERM, before)
