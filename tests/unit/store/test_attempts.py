"""The attempts of a stage: every one leaves its line, and a crash loop ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.errors import CrashLoopError, HpcError, TransientError
from hpc.store.attempts import (
    attempts_file,
    begin_attempt,
    crash_loop,
    end_attempt,
    read_attempts,
)


def test_a_torn_line_costs_no_other_line(tmp_path: Path) -> None:
    begin_attempt(tmp_path, 0)
    with attempts_file(tmp_path).open("ab") as file:
        file.write(b'{"attempt": 0, "en')
    second = begin_attempt(tmp_path, 0)
    assert second.number == 1
    end_attempt(tmp_path, second, 1, 0, "done")
    assert [row["attempt"] for row in read_attempts(tmp_path)] == [0, 0, 1, 1]


@pytest.mark.parametrize(("code", "refused"), [(1, True), (75, True), (0, False), (143, False)])
def test_only_attempts_that_failed_of_themselves_count(
    tmp_path: Path, code: int, refused: bool
) -> None:
    for _ in range(3):
        end_attempt(tmp_path, begin_attempt(tmp_path, 5), 5, code, "why")
    if refused:
        with pytest.raises(HpcError, match=r"no progress.*'why'.*--force"):
            begin_attempt(tmp_path, 5)
    else:
        assert begin_attempt(tmp_path, 5).number == 3


def test_progress_starts_the_count_again(tmp_path: Path) -> None:
    end_attempt(tmp_path, begin_attempt(tmp_path, 0), 0, 1, "why")
    end_attempt(tmp_path, begin_attempt(tmp_path, 0), 2, 1, "why")
    end_attempt(tmp_path, begin_attempt(tmp_path, 2), 2, 1, "why")
    end_attempt(tmp_path, begin_attempt(tmp_path, 2), 2, 1, "why")
    assert begin_attempt(tmp_path, 2).number == 4


def test_a_killed_attempt_gets_its_last_line_from_the_next(tmp_path: Path) -> None:
    begin_attempt(tmp_path, 4)
    begin_attempt(tmp_path, 9)
    [last] = [row for row in read_attempts(tmp_path) if "to" in row]
    assert (last["attempt"], last["to"], last["exit"]) == (0, 9, 137)
    assert "killed" in last["reason"]


def test_six_kills_without_progress_are_a_crash_loop(tmp_path: Path) -> None:
    for _ in range(6):
        begin_attempt(tmp_path, 4)
    with pytest.raises(CrashLoopError, match=r"6 attempts in a row made no progress.*killed"):
        begin_attempt(tmp_path, 4)


def test_the_operators_word_excuses_the_past_and_not_the_future(tmp_path: Path) -> None:
    for _ in range(3):
        end_attempt(tmp_path, begin_attempt(tmp_path, 0), 0, 1, "why")
    end_attempt(tmp_path, begin_attempt(tmp_path, 0, force=True), 0, 1, "why")
    for _ in range(2):
        end_attempt(tmp_path, begin_attempt(tmp_path, 0), 0, 1, "why")
    with pytest.raises(CrashLoopError, match="3 attempts"):
        begin_attempt(tmp_path, 0)


def test_a_walltime_used_up_in_vain_counts_and_a_preemption_does_not(tmp_path: Path) -> None:
    for _ in range(5):
        end_attempt(tmp_path, begin_attempt(tmp_path, 0), 0, 0, "saved", "PREEMPT")
    for _ in range(3):
        end_attempt(tmp_path, begin_attempt(tmp_path, 0), 0, 0, "saved", "DEADLINE")
    assert crash_loop(tmp_path) is not None


def test_array_elements_count_their_attempts_each_for_itself(tmp_path: Path) -> None:
    for _ in range(3):
        end_attempt(tmp_path, begin_attempt(tmp_path, 0, element=7), 0, 1, "why")
    assert begin_attempt(tmp_path, 0, element=8).number == 0
    with pytest.raises(CrashLoopError, match="element 7"):
        begin_attempt(tmp_path, 0, element=7)


def test_a_full_disk_for_the_attempts_is_transient(tmp_path: Path) -> None:
    attempt = begin_attempt(tmp_path, 0)
    attempts_file(tmp_path).unlink()
    attempts_file(tmp_path).symlink_to("/dev/full")
    with pytest.raises(TransientError, match="no space left"):
        end_attempt(tmp_path, attempt, 1, 0, "done")
