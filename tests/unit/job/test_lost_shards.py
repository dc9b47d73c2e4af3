"""Shards of elements that ended for good are made by the last living one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hpc.errors import IncompleteError, TransientError
from hpc.job.elements import run_element
from hpc.job.lost_shards import Siblings
from hpc.job.pipeline import Stage, Work
from hpc.store.attempts import element_attempts
from hpc.store.lease import lease
from hpc.store.ledger import Failure, Record
from hpc.store.plan import Plan, make_plan
from hpc.store.rundir import RunDir, create_run, now

ELEMENTS, SHARDS = 3, 9


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return create_run(tmp_path / "run", "a: 1\n", "f00d")


def make_all(work: Work) -> None:
    for task in work.todo():
        record = Record(task.id, work.plan.id, "/d", 1, 1, "a", work.attempt, "h", now(), now())
        work.ledger.publish(record)


def stage(work: Callable[[Work], None] = make_all) -> Stage:
    return Stage("generate", (), lambda _: make_plan("generate", [{}] * SHARDS), work)


def part(element: int) -> Callable[[Plan], list[str]]:
    return lambda plan: [shard.id for shard in plan.shards][element::ELEMENTS]


class Queue:
    """The elements in the queue, one answer after the other, and how often it was asked."""

    def __init__(self, *answers: Mapping[int, str]) -> None:
        self.answers, self.asked = list(answers), 0

    def __call__(self) -> Mapping[int, str]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def siblings(queued: Callable[[], Mapping[int, str]], timeout_s: float = 5.0) -> Siblings:
    def owners(plan: Plan) -> dict[str, int]:
        return {shard.id: shard.number % ELEMENTS for shard in plan.shards}

    return Siblings(owners, queued, timeout_s, poll_s=0.01)


def run_all_but(run: RunDir, gone: int, queued: Callable[[], Mapping[int, str]]) -> str:
    """Summary of the last of the elements but `gone`, one after the other."""
    summary = ""
    for element in range(ELEMENTS):
        if element != gone:
            summary = run_element(
                run, stage(), element, part(element), siblings=siblings(queued, timeout_s=0.1)
            )
    return summary


def test_the_last_living_element_makes_the_shards_of_the_lost_one_and_seals(run: RunDir) -> None:
    queue = Queue({1: "PENDING", 2: "PENDING"}, {})
    summary = run_all_but(run, 1, queue)
    assert summary == "generate: element 2 made 3 of its 3 shards now and 3 lost ones, sealed"
    assert run.ledger("generate").totals() == (SHARDS, SHARDS, 0)
    assert queue.asked == 2, "each element that found no living owner asked once"


def test_an_element_that_is_in_the_queue_makes_its_own(run: RunDir) -> None:
    summary = run_all_but(run, 1, Queue({1: "PENDING", 2: "PENDING"}, {1: "PENDING"}))
    assert summary == "generate: element 2 made 3 of its 3 shards now, 3 remain for other elements"
    assert "sealed" in run_element(run, stage(), 1, part(1), siblings=siblings(Queue({})))


def test_while_an_owner_lives_nobody_asks_slurm(run: RunDir) -> None:
    queue = Queue({})
    with lease(run.stage("generate") / ".lease-1.json"):
        run_element(run, stage(), 0, part(0), siblings=siblings(queue))
        summary = run_element(run, stage(), 2, part(2), siblings=siblings(queue))
    assert "3 remain for other elements" in summary
    assert queue.asked == 0


def test_a_job_that_is_ending_is_waited_for(run: RunDir) -> None:
    run_element(run, stage(), 0, part(0))
    queue = Queue({1: "RUNNING"}, {1: "COMPLETING"}, {})
    summary = run_element(run, stage(), 2, part(2), siblings=siblings(queue))
    assert "3 lost ones, sealed" in summary
    assert queue.asked == 3


def test_a_job_that_is_starting_keeps_its_shards(run: RunDir) -> None:
    taken = threading.Event()

    def start() -> None:
        with lease(run.stage("generate") / ".lease-1.json"):
            taken.wait(20)

    starting = threading.Thread(target=start)

    def queued() -> Mapping[int, str]:
        if not starting.is_alive():
            starting.start()
            while not (run.stage("generate") / ".lease-1.json").exists():
                time.sleep(0.01)
        return {1: "RUNNING"}

    run_element(run, stage(), 0, part(0))
    summary = run_element(run, stage(), 2, part(2), siblings=siblings(queued))
    taken.set()
    starting.join()
    assert "3 remain for other elements" in summary


def test_where_slurm_does_not_answer_nothing_is_taken_over(run: RunDir) -> None:
    def silent() -> Mapping[int, str]:
        raise TransientError("no answer")

    assert "3 remain for other elements" in run_all_but(run, 1, silent)


def test_a_shard_that_failed_is_not_tried_by_every_other_element(run: RunDir) -> None:
    def bad(work: Work) -> None:
        for task in work.todo():
            work.ledger.fail(Failure(task.id, work.plan.id, 0, 1, "DataError", "torn", now()))

    with pytest.raises(IncompleteError):
        run_element(run, stage(bad), 1, part(1))
    assert "3 remain for other elements" in run_all_but(run, 1, Queue({}))


def test_an_element_with_a_bad_shard_still_makes_what_others_lost(run: RunDir) -> None:
    def bad(work: Work) -> None:
        for task in work.todo():
            if task.id == "000002":
                error = Failure(task.id, work.plan.id, 0, 1, "DataError", "torn", now())
                work.ledger.fail(error)
        rest = frozenset(task.id for task in work.todo()) - {"000002"}
        make_all(Work(work.run, work.plan, work.ledger, 0, stripe=rest))

    run_element(run, stage(), 0, part(0))
    with pytest.raises(IncompleteError, match=r"1 of its shards .*torn"):
        run_element(run, stage(bad), 2, part(2), siblings=siblings(Queue({})))
    [left] = run.ledger("generate").missing(make_plan("generate", [{}] * SHARDS))
    assert left.id == "000002"


def test_two_elements_that_are_both_the_last_lose_and_double_nothing(run: RunDir) -> None:
    def slowly(work: Work) -> None:
        time.sleep(0.2)
        make_all(work)

    summary: list[str] = []

    def last(element: int) -> None:
        summary.append(
            run_element(run, stage(slowly), element, part(element), siblings=siblings(Queue({})))
        )

    threads = [threading.Thread(target=last, args=(element,)) for element in (0, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run.ledger("generate").sealed, summary
    assert run.ledger("generate").totals() == (SHARDS, SHARDS, 0)


def test_a_takeover_is_progress_of_the_element_that_makes_it(run: RunDir) -> None:
    def one_more(work: Work) -> None:
        if (
            len(work.todo()) == 3
            and work.element == 2
            and work.stripe == frozenset(part(2)(work.plan))
        ):
            make_all(work)
            return
        if work.element == 2:
            [task, *_] = work.todo()
            make_all(Work(work.run, work.plan, work.ledger, 0, stripe=frozenset([task.id])))
            raise TransientError("a fault of the machine")
        make_all(work)

    run_element(run, stage(), 0, part(0))
    for _ in range(3):
        with pytest.raises(TransientError):
            run_element(run, stage(one_more), 2, part(2), siblings=siblings(Queue({})))
    rows = element_attempts(run.stage("generate"), 2)
    assert [row["to"] for row in rows if "to" in row] == [7, 8, 9]
    assert "sealed" in run_element(run, stage(), 2, part(2), siblings=siblings(Queue({})))
