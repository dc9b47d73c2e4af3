"""The restart budget, from the rows of attempts alone."""

from __future__ import annotations

from typing import Any

import pytest

from hpc.store.restarts import BAD_NODE, KILLED, RESTART_LIMIT, SIGNALLED, exhausted

Rows = list[dict[str, Any]]


def tried(number: int, start: int, end: int | None, code: int = 0, **more: Any) -> Rows:
    """The start of an attempt, and its end row unless `end` is None."""
    first = {"attempt": number, "from": start}
    if "forced" in more:
        first["forced"] = more.pop("forced")
    last = {"attempt": number, "to": end, "exit": code, "reason": f"end {number}", **more}
    return [first] if end is None else [first, last]


def all_of(*attempts: Rows) -> Rows:
    return [row for attempt in attempts for row in attempt]


def preempted(count: int, first: int = 0, at: int = 3) -> list[Rows]:
    return [tried(number, at, at, stop="PREEMPT") for number in range(first, first + count)]


@pytest.mark.parametrize(("count", "enough"), [(49, False), (50, True), (51, True)])
def test_restarts_without_progress_are_counted_and_the_newest_end_is_named(
    count: int, enough: bool
) -> None:
    why = exhausted(all_of(*preempted(count)))
    wanted = f"{count} restarts since the last progress, the last ended with 'end {count - 1}'"
    assert why == (wanted if enough else None)


def test_a_start_without_an_end_hides_none_of_the_later_ones() -> None:
    rows = all_of(*preempted(10), tried(10, 3, None), *preempted(RESTART_LIMIT - 10, first=11))
    assert str(exhausted(rows)).startswith(f"{RESTART_LIMIT} restarts")


def test_progress_and_the_operators_override_start_the_count_of_restarts_again() -> None:
    some = preempted(30)
    assert exhausted(all_of(*some, tried(30, 3, 4), *preempted(49, 31, at=4))) is None
    assert exhausted(all_of(*some, tried(30, 3, 4), *preempted(50, 31, at=4))) is not None
    forced = tried(30, 3, 3, stop="PREEMPT", forced=True)
    assert exhausted(all_of(*some, forced, *preempted(48, 31))) is None
    assert exhausted(all_of(*some, forced, *preempted(49, 31))) is not None


def test_a_progress_that_was_reached_before_is_none() -> None:
    again = [tried(n, 20 - 10 * (n % 2), 10 + 10 * (n % 2)) for n in range(RESTART_LIMIT)]
    assert str(exhausted(all_of(*again))).startswith("50 restarts")


def test_the_operators_stops_are_no_restarts() -> None:
    stops = [tried(n, 3, 3, stop="STOP_FILE") for n in range(RESTART_LIMIT + 5)]
    assert exhausted(all_of(*stops)) is None


@pytest.mark.parametrize(
    ("code", "stop", "allowed"),
    [
        (1, None, 2),
        (SIGNALLED - 1, None, 2),
        (75, BAD_NODE, 5),
        (KILLED, None, 5),
        (0, "DEADLINE", 2),
        (SIGNALLED, None, 49),
        (0, None, 49),
    ],
)
def test_each_kind_of_end_is_allowed_so_often_in_a_row(
    code: int, stop: str | None, allowed: int
) -> None:
    ends = [tried(n, 0, 0, code, stop=stop) for n in range(allowed + 1)]
    assert exhausted(all_of(*ends[:-1])) is None
    why = exhausted(all_of(*ends))
    assert why is not None
    assert why.startswith(f"{allowed + 1} ")
    assert f"the last ended with 'end {allowed}'" in why


def test_ends_that_are_no_failures_neither_count_nor_excuse_one() -> None:
    for code, stop in ((0, "PREEMPT"), (0, None), (143, None)):
        other = tried(2, 0, 0, code, stop=stop)
        two = [tried(0, 0, 0, 1), tried(1, 0, 0, 1), other]
        assert exhausted(all_of(*two)) is None
        three = [*two, tried(3, 0, 0, 1), tried(4, 0, 0, code, stop=stop)]
        why = "3 attempts in a row made no progress, the last ended with 'end 3'"
        assert exhausted(all_of(*three)) == why


def test_failures_before_the_last_progress_or_override_do_not_count() -> None:
    old = [tried(n, 0, 0, 1) for n in range(2)]
    new = [tried(n, 5, 5, 1) for n in range(3, 5)]
    assert exhausted(all_of(*old, tried(2, 0, 5, 1), *new)) is None
    assert exhausted(all_of(*old, tried(2, 5, 0, 1), *new)) is None, "a loss is a change too"
    assert exhausted(all_of(*old, tried(2, 0, 0, 1), *new)) is not None
    forced = tried(2, 5, 5, 1, forced=True)
    assert str(exhausted(all_of(*old, forced, *new))).startswith("3 attempts"), "itself does"
    assert exhausted(all_of(*old, tried(2, 5, 5, 0, forced=True), *new)) is None


def test_a_kill_that_is_known_counts_as_one_and_so_do_those_before_it() -> None:
    open_ended = [tried(n, 0, None) for n in range(6)]
    assert exhausted(all_of(*open_ended)) is None
    assert exhausted(all_of(*open_ended), killed=4) is None
    why = exhausted(all_of(*open_ended), killed=5)
    assert why == "6 attempts in a row made no progress, the last ended with 'killed'"
    done = all_of(*open_ended[:5], tried(5, 0, 9))
    assert exhausted(done, killed=5) is None, "that one has its end row"


def test_a_kill_is_told_by_the_exit_code_that_shells_give_it() -> None:
    assert KILLED == 137


def test_without_attempts_one_may_begin() -> None:
    assert exhausted([]) is None
