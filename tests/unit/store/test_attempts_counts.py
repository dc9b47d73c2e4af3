"""What counts towards a crash loop, and which line of which attempt is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpc.errors import CrashLoopError, TransientError
from hpc.store.attempts import (
    KILLED,
    begin_attempt,
    crash_loop,
    element_attempts,
    end_attempt,
    last_failure,
    read_attempts,
)


def tried(directory: Path, *codes: int, start: int = 0, end: int | None = None) -> None:
    for code in codes:
        attempt = begin_attempt(directory, start)
        end_attempt(directory, attempt, start if end is None else end, code, f"why {code}")


@pytest.mark.parametrize(
    ("codes", "loop"),
    [
        ((1, 1), False),
        ((1, 1, 1), True),
        ((127, 127, 127), True),
        ((128, 128, 128), False),
        ((143, 143, 143), False),
        ((0, 0, 0), False),
        ((1, 137, 1), False),
        ((1, 137, 1, 137), True),
        ((137,) * 5, False),
        ((137,) * 6, True),
        ((1, 0, 1, 0, 1), True),
    ],
)
def test_a_failure_counts_one_a_kill_a_half_and_the_rest_nothing(
    tmp_path: Path, codes: tuple[int, ...], loop: bool
) -> None:
    tried(tmp_path, *codes)
    assert (crash_loop(tmp_path) is not None) is loop


def test_the_loop_is_told_by_its_length_and_its_last_end(tmp_path: Path) -> None:
    stage = tmp_path / "run" / "tile"
    tried(stage, 1, 2, 3)
    message = f"{stage}: 3 attempts in a row made no progress, the last ended with 'why 3'"
    assert str(crash_loop(stage)).startswith(message)
    assert f"sarhpc resume {tmp_path / 'run'} --force" in str(crash_loop(stage))


@pytest.mark.parametrize("end", [1, -1])
def test_any_other_progress_than_none_starts_the_count_again(tmp_path: Path, end: int) -> None:
    tried(tmp_path, 1, 1)
    tried(tmp_path, 1, end=end)
    tried(tmp_path, 1, 1)
    assert crash_loop(tmp_path) is None
    tried(tmp_path, 1)
    assert crash_loop(tmp_path) is not None


def test_the_script_may_count_the_kill_that_nobody_has_noted(tmp_path: Path) -> None:
    tried(tmp_path, 137, 137, 137, 137, 137)
    begin_attempt(tmp_path, 0)
    assert crash_loop(tmp_path) is None
    assert crash_loop(tmp_path, killed=5) is not None
    assert crash_loop(tmp_path, killed=4) is None, "that one has its last line already"


def test_a_start_says_where_and_by_which_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_JOB_ID", "SUBMITIT_LOCAL_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    assert begin_attempt(tmp_path, 7).job == "local"
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "77")
    assert begin_attempt(tmp_path, 7, element=2).job == "77"
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    attempt = begin_attempt(tmp_path, 7, element=4)
    [row] = element_attempts(tmp_path, 4)
    assert (attempt.number, row["attempt"], row["element"]) == (0, 0, 4)
    assert (row["job"], row["restart"], row["from"]) == ("12", 3, 7)
    assert (row["host"], row["pid"]) == (attempt.host, attempt.pid)
    assert "forced" not in row
    [first] = element_attempts(tmp_path)
    assert (first["restart"], "element" in first) == (0, False)


def test_the_last_line_says_how_far_and_why(tmp_path: Path) -> None:
    attempt = begin_attempt(tmp_path, 0, element=3)
    end_attempt(tmp_path, attempt, 9, 0, "saved", "PREEMPT")
    row = read_attempts(tmp_path)[-1]
    assert list(row) == sorted(row)
    del row["ended"]
    assert row == {"attempt": 0, "to": 9, "element": 3, "exit": 0, "reason": "saved",
                   "stop": "PREEMPT"}  # fmt: skip


def test_an_attempt_that_left_no_word_gets_one_and_keeps_its_element(tmp_path: Path) -> None:
    begin_attempt(tmp_path, 0, element=3)
    begin_attempt(tmp_path, 5)
    assert len(read_attempts(tmp_path)) == 2, "another element's is its own affair"
    begin_attempt(tmp_path, 4, element=3)
    [last] = [row for row in read_attempts(tmp_path) if "to" in row]
    assert (last["element"], last["to"], last["exit"]) == (3, 4, KILLED)


def test_force_is_noted_and_lets_a_loop_try_again(tmp_path: Path) -> None:
    tried(tmp_path, 1, 1, 1)
    with pytest.raises(CrashLoopError):
        begin_attempt(tmp_path, 0)
    begin_attempt(tmp_path, 0, force=True)
    assert read_attempts(tmp_path)[-1]["forced"] is True


ROWS: list[dict[str, Any]] = [
    {"attempt": 2, "from": 0},
    {"attempt": 2, "to": 0, "exit": 1, "reason": "old"},
    {"attempt": 3, "from": 0},
]


@pytest.mark.parametrize(
    ("more", "trouble"),
    [
        ([], None),
        ([{"attempt": 3, "to": 1, "exit": 0, "reason": "done"}], None),
        ([{"attempt": 3, "to": 1, "exit": 5, "reason": "torn"}], "attempt 3 exit=5: torn"),
        (
            [{"attempt": 3, "to": 1, "exit": KILLED, "reason": "killed"},
             {"attempt": 3, "to": 1, "exit": 1, "reason": "late"}],
            "attempt 3 exit=1: late",
        ),
    ],
)  # fmt: skip
def test_trouble_is_how_the_newest_attempt_ended(
    more: list[dict[str, Any]], trouble: str | None
) -> None:
    assert last_failure([*ROWS, *more]) == trouble
    assert last_failure([]) is None


def test_a_second_end_of_an_attempt_replaces_the_first(tmp_path: Path) -> None:
    attempt = begin_attempt(tmp_path, 0)
    end_attempt(tmp_path, attempt, 1, 75, "hang", "HANG")
    end_attempt(tmp_path, attempt, 1, 1, "late\n  and   long " + 3000 * "x")
    [row] = [row for row in read_attempts(tmp_path) if "to" in row]
    assert row["reason"].startswith("late and long xxx"), "one line"
    assert len(row["reason"]) == 2000
    assert "stop" not in row


def test_other_errors_of_the_disk_are_told_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file") as error:
        begin_attempt(tmp_path / "file", 0)
    assert not isinstance(error.value, TransientError)
