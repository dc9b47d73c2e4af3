"""The attempts of a stage: every one leaves its line, and a crash loop ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpc.errors import CrashLoopError, HpcError, TransientError
from hpc.store.attempts import (
    BAD_NODE,
    KEPT,
    KILLED,
    RESTART_LIMIT,
    attempts_file,
    begin_attempt,
    compact_attempts,
    count_starts,
    crash_loop,
    element_file,
    end_attempt,
    open_attempt,
    read_attempts,
    withdraw_attempt,
)
from hpc.store.rundir import now

STARTED = {"job": "1", "host": "h", "pid": 1, "from": 0}
"""Fields of a start row that these tests do not look at."""


def test_a_torn_line_of_an_old_run_costs_no_other_line(tmp_path: Path) -> None:
    row = {"attempt": 0, "job": "1", "host": "h", "pid": 1, "from": 0, "started": now()}
    attempts_file(tmp_path).write_text(json.dumps(row) + '\n{"attempt": 0, "en\n')
    second = begin_attempt(tmp_path, 0)
    assert second.number == 1
    end_attempt(tmp_path, second, 1, 0, "done")
    assert [row["attempt"] for row in read_attempts(tmp_path)] == [0, 0, 1, 1]
    assert [row["exit"] for row in read_attempts(tmp_path) if "to" in row] == [KILLED, 0]


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


def test_a_full_disk_for_the_attempts_is_transient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = begin_attempt(tmp_path, 0)
    monkeypatch.setattr("hpc.publish._passages", {})
    monkeypatch.setenv("SARHPC_FAULT", "publish.before_fsync:1:enospc")
    with pytest.raises(TransientError, match="no space left"):
        end_attempt(tmp_path, attempt, 1, 0, "done")
    assert [row["attempt"] for row in read_attempts(tmp_path)] == [0], "its start is still there"


def test_an_old_list_is_read_with_what_came_since_and_compacted_into_it(tmp_path: Path) -> None:
    old = [
        {"attempt": 0, "job": "1", "host": "h", "pid": 1, "from": 0, "started": now()},
        {"attempt": 0, "ended": now(), "to": 0, "exit": 1, "reason": "why"},
        {"attempt": 0, "job": "2", "host": "h", "pid": 2, "from": 0, "started": now(),
         "element": 3},
    ]  # fmt: skip
    attempts_file(tmp_path).write_text("".join(json.dumps(row) + "\n" for row in old))
    end_attempt(tmp_path, begin_attempt(tmp_path, 0), 4, 0, "done")
    assert begin_attempt(tmp_path, 0, element=3).number == 1
    assert attempts_file(tmp_path).read_text().count("\n") == 3, "an old file is not appended to"
    rows = read_attempts(tmp_path)
    assert [r["attempt"] for r in rows if r.get("element") is None] == [0, 0, 1, 1]
    assert [r["attempt"] for r in rows if r.get("element") == 3] == [0, 0, 1]
    compact_attempts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["attempts.jsonl"]
    assert all(row in rows for row in read_attempts(tmp_path))
    assert len(read_attempts(tmp_path)) == len(rows)


def test_attempts_are_bounded_and_their_count_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert KEPT > RESTART_LIMIT, "the budget looks back that far"
    monkeypatch.setattr("hpc.store.attempts.KEPT", 5)
    for progress in range(9):
        end_attempt(tmp_path, begin_attempt(tmp_path, progress), progress + 1, 0, "saved")
    rows = read_attempts(tmp_path)
    assert (len(rows), count_starts(rows)) == (10, 9)


def test_thousands_of_elements_leave_one_file_of_bounded_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc.store.attempts.KEPT_SEALED", 100)
    for element in range(30):
        path = element_file(tmp_path, element)
        path.parent.mkdir(exist_ok=True)
        rows: list[dict[str, object]] = []
        for n in range(6):
            rows += [{**STARTED, "attempt": n, "element": element, "started": now()}]
            rows += [{"attempt": n, "element": element, "to": 0, "exit": 0, "reason": ""}]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = read_attempts(tmp_path)
    assert (len(before), count_starts(before)) == (360, 180)
    compact_attempts(tmp_path)
    after = read_attempts(tmp_path)
    assert (len(after), count_starts(after)) == (30 * 3 * 2, 180)
    assert [path.name for path in tmp_path.iterdir()] == ["attempts.jsonl"]


def test_an_end_after_the_compaction_is_not_lost(tmp_path: Path) -> None:
    first, second = (begin_attempt(tmp_path, 0, element=n) for n in (0, 1))
    end_attempt(tmp_path, first, 1, 0, "done")
    compact_attempts(tmp_path)
    end_attempt(tmp_path, second, 1, 0, "done")
    for _ in range(2):
        rows = read_attempts(tmp_path)
        assert sorted((r["element"], "to" in r) for r in rows) == [
            (0, False), (0, True), (1, False), (1, True)
        ]  # fmt: skip
        compact_attempts(tmp_path)


def test_a_start_that_was_none_leaves_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "tile"
    withdraw_attempt(directory, open_attempt(directory))
    assert not directory.exists()
    running = begin_attempt(directory, 4)
    withdraw_attempt(directory, open_attempt(directory))
    [row] = read_attempts(directory)
    assert (row["attempt"], row["from"]) == (running.number, 4), "it did not touch the running one"


def test_an_attempt_that_another_process_has_ended_stays(tmp_path: Path) -> None:
    first = begin_attempt(tmp_path, 0)
    begin_attempt(tmp_path, 2)
    before = read_attempts(tmp_path)
    withdraw_attempt(tmp_path, first)
    assert read_attempts(tmp_path) == before


def test_a_failure_before_the_progress_is_known_counts(tmp_path: Path) -> None:
    end_attempt(tmp_path, begin_attempt(tmp_path, 0), 7, 0, "saved", "PREEMPT")
    for _ in range(3):
        attempt = open_attempt(tmp_path)
        assert attempt.start["from"] == 7
        end_attempt(tmp_path, attempt, 7, 1, "OSError: no plan")
    assert "3 attempts in a row" in str(crash_loop(tmp_path))


def ended(start: int, end: int, stop: str = "PREEMPT", code: int = 0) -> list[dict[str, object]]:
    first = {**STARTED, "from": start, "started": now()}
    return [first, {"to": end, "exit": code, "reason": "saved", "stop": stop}]


def stand_attempts(directory: Path, *attempts: list[dict[str, object]]) -> None:
    """Attempts as they would have been recorded, without the time it takes to publish each."""
    path = element_file(directory, None)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{**row, "attempt": n} for n, attempt in enumerate(attempts) for row in attempt]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_fifty_restarts_without_progress_are_enough_whatever_they_ended_with(
    tmp_path: Path,
) -> None:
    stand_attempts(tmp_path, ended(0, 3), *[ended(3, 3)] * (RESTART_LIMIT - 1))
    end_attempt(tmp_path, begin_attempt(tmp_path, 3), 3, 0, "saved", "PREEMPT")
    with pytest.raises(CrashLoopError, match=r"50 restarts since the last progress.*'saved'"):
        begin_attempt(tmp_path, 3)
    assert begin_attempt(tmp_path, 3, force=True).number == RESTART_LIMIT + 1


def test_a_run_that_is_preempted_two_hundred_times_goes_on(tmp_path: Path) -> None:
    stand_attempts(tmp_path, *[ended(n, n + 1) for n in range(200)])
    assert begin_attempt(tmp_path, 200).number == 200


def test_a_checkpoint_that_is_lost_and_made_again_is_no_progress(tmp_path: Path) -> None:
    again = [ended(20, 10, code=143), ended(10, 20, code=143)]
    stand_attempts(tmp_path, *again * (RESTART_LIMIT // 2))
    assert crash_loop(tmp_path) is not None


def test_the_operators_stops_are_no_restarts(tmp_path: Path) -> None:
    stand_attempts(tmp_path, *[ended(3, 3, "STOP_FILE")] * (RESTART_LIMIT + 5))
    assert crash_loop(tmp_path) is None


def test_bad_nodes_count_as_much_as_kills(tmp_path: Path) -> None:
    stand_attempts(tmp_path, *[ended(3, 3, BAD_NODE, 75)] * 5)
    assert crash_loop(tmp_path) is None
    stand_attempts(tmp_path, *[ended(3, 3, BAD_NODE, 75)] * 6)
    assert crash_loop(tmp_path) is not None


def test_an_end_during_the_compaction_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (begin_attempt(tmp_path, 0, element=n) for n in (0, 1))
    end_attempt(tmp_path, first, 1, 0, "done")

    def publish_late(path: Path, text: str) -> None:
        monkeypatch.undo()
        end_attempt(tmp_path, second, 1, 0, "done")
        path.write_text(text)

    monkeypatch.setattr("hpc.store.attempts.publish_text", publish_late)
    compact_attempts(tmp_path)
    assert [path.name for path in (tmp_path / "attempts").iterdir()] == ["e00001.jsonl"]
    assert sum("to" in row for row in read_attempts(tmp_path)) == 2
    compact_attempts(tmp_path)
    assert not (tmp_path / "attempts").exists()
    assert sum("to" in row for row in read_attempts(tmp_path)) == 2
