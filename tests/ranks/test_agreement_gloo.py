"""Ranks of a real gloo group decide as one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from gloo_ranks import run_ranks

from hpc.errors import ConfigError
from hpc.job.agreement import (
    RankGroup,
    TorchRankGroup,
    try_together,
)
from hpc.job.stop import StopRequest

STEPS = 40


def exchange(ranks: RankGroup, directory: Path) -> Any:
    ranks.barrier()
    return {
        "broadcast": ranks.broadcast({"from": ranks.rank}),
        "gather": ranks.gather(ranks.rank * 10),
        "maximum": ranks.maximum(ranks.rank),
        "one": ranks.any(ranks.rank == 1),
        "none": ranks.any(False),
        "device": str(ranks.device),
    }


def test_every_rank_gets_the_same_answer(tmp_path: Path) -> None:
    expected = {
        "broadcast": {"from": 0},
        "gather": [0, 10, 20],
        "maximum": 2,
        "one": True,
        "none": False,
        "device": "cpu",
    }
    assert run_ranks(exchange, tmp_path, world=3) == [expected] * 3


def reduce(ranks: RankGroup, directory: Path) -> Any:
    import torch

    from sarhpc.training.stepper import reduce_losses

    found = []
    for asks, late in (((0, 0), 1), ((2, 5), 0), ((7, 1), 0)):
        losses = {"loss": torch.tensor(1.0 + ranks.rank), "prior_loss": torch.tensor(4.0)}
        means, is_late, urgency = reduce_losses(
            losses, ranks.rank == late, ranks, asks[ranks.rank]
        ).read()
        found.append([means, is_late, urgency])
    return found


def test_ranks_agree_to_stop_in_the_all_reduce_of_their_losses(tmp_path: Path) -> None:
    first, second = run_ranks(reduce, tmp_path)
    assert first == second
    assert [means for means, _, _ in first] == [{"loss": 1.5, "prior_loss": 4.0}] * 3
    assert [late for _, late, _ in first] == [False, True, True], "rank 0's alone counts"
    assert [urgency for _, _, urgency in first] == [0, 5, 7]


def fail_on_rank_1(ranks: RankGroup, directory: Path) -> Any:
    def action() -> int:
        if ranks.rank == 1:
            raise OSError(28, "No space left on device")
        return ranks.rank

    return [[outcome.value, outcome.failure] for outcome in try_together(ranks, action)]


def test_every_rank_learns_of_a_failure_on_one(tmp_path: Path) -> None:
    first, second = run_ranks(fail_on_rank_1, tmp_path)
    assert first == second
    assert first[0] == [0, None]
    assert "No space left" in first[1][1]


def die_on_rank_1(ranks: RankGroup, directory: Path) -> Any:
    ranks.barrier()
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return ranks.any(False)


def test_a_dead_rank_is_a_transient_error_for_the_others(tmp_path: Path) -> None:
    survivor, dead = run_ranks(die_on_rank_1, tmp_path)
    assert dead is None
    assert survivor["error"] == "TransientError"
    assert "lost the connection" in survivor["text"]


def step_until_agreed(ranks: RankGroup, stop: StopRequest, signals: dict[int, int]) -> Any:
    """Take steps of uneven length; send this process signal `signals[step]` during a step."""
    for step in range(STEPS):
        time.sleep(0.002 * (1 + ranks.rank))
        if step in signals:
            os.kill(os.getpid(), signals[step])
        reason = stop.agree()
        if reason is not None and reason.stops:
            return [step, reason.name]
    return [STEPS, None]


def signal_rank_1(ranks: RankGroup, directory: Path) -> Any:
    with StopRequest(ranks) as stop:
        return step_until_agreed(ranks, stop, {7: signal.SIGUSR2} if ranks.rank == 1 else {})


def test_a_signal_to_one_rank_stops_all_at_the_same_step(tmp_path: Path) -> None:
    assert run_ranks(signal_rank_1, tmp_path, world=3) == [[7, "PREEMPT"]] * 3


def signal_ranks_one_step_apart(ranks: RankGroup, directory: Path) -> Any:
    with StopRequest(ranks) as stop:
        return step_until_agreed(ranks, stop, {5 + ranks.rank: signal.SIGUSR2})


def test_ranks_signalled_one_step_apart_stop_at_the_same_step(tmp_path: Path) -> None:
    assert run_ranks(signal_ranks_one_step_apart, tmp_path) == [[5, "PREEMPT"]] * 2


def signal_ranks_differently(ranks: RankGroup, directory: Path) -> Any:
    number = [signal.SIGUSR2, signal.SIGTERM][ranks.rank]
    with StopRequest(ranks) as stop:
        return step_until_agreed(ranks, stop, {3: number})


def test_ranks_that_saw_different_signals_agree_on_the_stronger(tmp_path: Path) -> None:
    assert run_ranks(signal_ranks_differently, tmp_path) == [[3, "TERMINATE"]] * 2


def touch_files(ranks: RankGroup, directory: Path) -> Any:
    save, halt = directory / "SAVE", directory / "STOP"
    stop = StopRequest(ranks, halt, save, poll_s=0.0)
    heard = []
    for step in range(6):
        if ranks.rank == 1 and step == 2:
            save.touch()
        if ranks.rank == 1 and step == 4:
            halt.touch()
        ranks.barrier()
        reason = stop.agree()
        heard.append(reason.name if reason else None)
    return heard


def test_a_save_file_is_heard_once_and_a_stop_file_for_good(tmp_path: Path) -> None:
    expected = [None, None, "SAVE_FILE", None, "STOP_FILE", "STOP_FILE"]
    assert run_ranks(touch_files, tmp_path) == [expected] * 2
    assert not (tmp_path / "SAVE").exists()
    assert (tmp_path / "STOP").exists()


def test_ranks_without_a_group_are_refused() -> None:
    with pytest.raises(ConfigError, match="init_process_group"):
        TorchRankGroup()
