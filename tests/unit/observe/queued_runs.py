"""Runs with jobs in the queue of a cluster that answers what it is told to."""

from __future__ import annotations

from collections.abc import Sequence

from hpc.cluster.slurm import AccountedJob, QueuedJob, SlurmUnavailableError
from hpc.job.pipeline import Stage
from hpc.observe.status import RunStatus
from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now
from hpc.store.submissions import SubmissionRecord, SubmittedJob, publish_submission


class Slurm:
    """A cluster that answers what it is told to, and counts the questions."""

    def __init__(
        self, rows: Sequence[QueuedJob] = (), ended: Sequence[AccountedJob] = (), down: bool = False
    ) -> None:
        self.rows, self.ended, self.down = list(rows), list(ended), down
        self.asked: list[str] = []

    def queue(self, ids: Sequence[str] | None = None, *, retries: int = 1) -> list[QueuedJob]:
        self.asked.append("squeue")
        if self.down:
            raise SlurmUnavailableError("Slurm did not answer squeue")
        return [row for row in self.rows if ids is None or row.job_id in ids]

    def accounting(self, ids: Sequence[str], since: str) -> list[AccountedJob]:
        self.asked.append("sacct")
        return [row for row in self.ended if row.job_id in ids]


def queued(job: str, state: str = "RUNNING", reason: str = "None", **more: object) -> QueuedJob:
    facts = {"nodes": "n1" if state == "RUNNING" else "", "elapsed_s": 60, "left_s": 7200,
             "restarts": 0, "comment": ""} | more  # fmt: skip
    return QueuedJob(job, "demo-tile", state, reason, "main", **facts)  # type: ignore[arg-type]


def over(job: str, state: str, code: str = "1:0", ended: str = "2026-01-01T00:00:00"):
    return AccountedJob(job, "x", state, 60, 0, 1, "n1", code, "", ended, "")


STAGES = [
    Stage("tile", (), lambda _: make_plan("tile", []), lambda _: None),
    Stage("train", ("tile",), lambda _: make_plan("train", []), lambda _: None),
]


def submitted(run: RunDir, *jobs: tuple[str, str], number: int = 0, **more: object) -> None:
    rows = [
        SubmittedJob(stage, job, None, None, "submit/x", "logs/%j", 1, 0, **more)  # type: ignore[arg-type]
        for stage, job in jobs
    ]
    publish_submission(
        run, SubmissionRecord(number, now(), "slurm", "a100", f"token{number}", tuple(rows))
    )


def stand(run: RunDir, stage: str, shards: int, done: int) -> None:
    plan = make_plan(stage, [{"n": n} for n in range(shards)])
    publish_plan(plan, run.plan_file(stage))
    for task in plan.shards[:done]:
        run.ledger(stage).publish(
            Record(task.id, plan.id, "/d", 2, 9, "aa", 0, "n1", now(), now(), 1.0, {"nodata": 1})
        )
    if done == shards:
        run.ledger(stage).seal(plan)


def states(status: RunStatus) -> list[str]:
    return [stage.state for stage in status.stages]
