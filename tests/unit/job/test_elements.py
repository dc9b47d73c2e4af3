"""Array elements: each its stripe, the last one seals, and no two are the same."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from hpc.errors import HpcError, IncompleteError, RunInUseError, StopRequestedError
from hpc.job.agreement import SingleProcess
from hpc.job.elements import run_element
from hpc.job.pipeline import JobContext, Stage, Work
from hpc.job.stop import StopRequest
from hpc.store.attempts import read_attempts
from hpc.store.lease import lease
from hpc.store.ledger import Record
from hpc.store.plan import Plan, make_plan
from hpc.store.rundir import RunDir, create_run, now

ELEMENTS = 3


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return create_run(tmp_path / "run", "a: 1\n", "f00d")


def publish(work: Work, shard: str) -> None:
    work.ledger.publish(
        Record(shard, work.plan.id, "/d", 1, 1, "a", work.attempt, "h", now(), now())
    )


def publish_part(work: Work) -> None:
    for task in work.todo():
        publish(work, task.id)


def stage(work=publish_part, finish=None) -> Stage:
    return Stage("generate", (), lambda _: make_plan("generate", [{}] * 7), work, finish)


def part(element: int):
    def stripe(plan: Plan) -> list[str]:
        return [shard.id for shard in plan.shards][element::ELEMENTS]

    return stripe


def test_every_element_makes_its_own_and_the_last_one_seals(run: RunDir) -> None:
    finished: list[int] = []
    whole = stage(finish=lambda work: finished.append(len(work.ledger.records())))
    said = [run_element(run, whole, e, part(e)) for e in (2, 0, 1)]
    assert said[0] == "generate: element 2 made 2 of its 2 shards now, 5 remain for other elements"
    assert said[2] == "generate: element 1 made 2 of its 2 shards now, sealed"
    assert run.ledger("generate").totals() == (7, 7, 0)
    assert finished == [7]
    assert sorted({row["element"] for row in read_attempts(run.stage("generate"))}) == [0, 1, 2]
    assert "nothing to do" in run_element(run, whole, 0, part(0))


def test_elements_started_together_plan_once_and_seal_once(run: RunDir) -> None:
    planned: list[int] = []

    def plan(_: RunDir) -> Plan:
        planned.append(1)
        return make_plan("generate", [{}] * 7)

    whole = Stage("generate", (), plan, publish_part)
    threads = [
        threading.Thread(target=run_element, args=(run, whole, e, part(e))) for e in range(ELEMENTS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert planned == [1]
    assert run.ledger("generate").sealed


def test_an_element_that_comes_back_seals_when_only_that_was_left(run: RunDir) -> None:
    def dies(work: Work) -> None:
        raise HpcError("died between the last record and the seal")

    for element in range(2):
        run_element(run, stage(), element, part(element))
    with pytest.raises(HpcError, match="died between"):
        run_element(run, stage(finish=dies), 2, part(2))
    assert not run.ledger("generate").sealed
    assert "made 0 of its 2 shards now, sealed" in run_element(run, stage(), 2, part(2))


def test_an_element_that_fails_is_incomplete_and_says_what_is_left(run: RunDir) -> None:
    def half(work: Work) -> None:
        publish(work, work.todo()[0].id)

    with pytest.raises(IncompleteError, match="element 0 did not finish 2 of its shards"):
        run_element(run, stage(half), 0, part(0))


def test_the_same_element_twice_is_refused_and_another_is_not(run: RunDir) -> None:
    with lease(run.stage("generate") / ".lease-0.json"):
        with pytest.raises(RunInUseError):
            run_element(run, stage(), 0, part(0))
        assert "element 1 made" in run_element(run, stage(), 1, part(1))


def test_a_stopped_element_keeps_what_it_made_and_asks_to_come_back(run: RunDir) -> None:
    def preempted(work: Work) -> None:
        publish(work, work.todo()[0].id)
        os.kill(os.getpid(), signal.SIGUSR2)

    with (
        StopRequest(SingleProcess(), urgent=True) as stop,
        pytest.raises(StopRequestedError, match="PREEMPT") as stopped,
    ):
        run_element(run, stage(preempted), 0, part(0), JobContext(stop))
    assert stopped.value.requeue
    assert len(run.ledger("generate").recorded_ids()) == 1
    assert read_attempts(run.stage("generate"))[-1]["stop"] == "PREEMPT"
