from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpc.cluster.profile import Resources
from hpc.cluster.slurm import AccountedJob, QueuedJob
from hpc.job.pipeline import Stage
from hpc.observe.report import CostReport, cost_report, report_lines
from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, create_run, now
from hpc.store.submissions import SubmissionRecord, SubmittedJob, publish_submission

T0 = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def local(seconds: float) -> str:
    """`T0` and some seconds as Slurm prints it: this machine's time, without a zone."""
    moment = T0 + datetime.timedelta(seconds=seconds)
    return moment.astimezone().replace(tzinfo=None).isoformat(timespec="seconds")


def utc(seconds: float) -> str:
    """`T0` and some seconds as records have it."""
    return (T0 + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Accounts:
    """Accounting that tells given rows, and counts the questions."""

    def __init__(self, *rows: AccountedJob) -> None:
        self.rows, self.asked = list(rows), 0

    def queue(self, ids: Sequence[str] | None = None, *, retries: int = 1) -> list[QueuedJob]:
        return []

    def accounting(self, ids: Sequence[str], since: str) -> list[AccountedJob]:
        self.asked += 1
        return [row for row in self.rows if row.job_id in ids]


def row(
    job: str, state: str, begin: float, seconds: int, gpus: int = 4, nodes: str = "n1"
) -> AccountedJob:
    return AccountedJob(job, "x", state, seconds, gpus, 16, nodes, "0:0", local(begin), "", "")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return create_run(tmp_path / "run", "a: 1\n", "f00d")


def stage(name: str, reached: list[float] | None = None) -> Stage:
    times = None if reached is None else lambda _: reached
    return Stage(name, (), lambda _: make_plan(name, []), lambda _: None, progress_times=times)


def submitted(run: RunDir, *jobs: tuple[str, str], gpus: int = 4) -> None:
    rows = [SubmittedJob(name, job, None, None, "s", "l", 4, gpus) for name, job in jobs]
    publish_submission(run, SubmissionRecord(0, now(), "slurm", "a100", "t", tuple(rows)))


def stand(run: RunDir, name: str, ends: Sequence[tuple[float, str]], samples: int = 500) -> None:
    """Records that were finished so many seconds after T0 on those hosts."""
    plan = make_plan(name, [{}] * len(ends))
    publish_plan(plan, run.plan_file(name))
    for task, (end, host) in zip(plan.shards, ends, strict=True):
        run.ledger(name).publish(
            Record(task.id, plan.id, "/d", samples, 9, "aa", 0, host, utc(end - 10), utc(end))
        )


def test_every_start_of_a_requeued_training_counts_and_lost_time_is_told(run: RunDir) -> None:
    submitted(run, ("train", "7"))
    # Preempted 100 s after its last checkpoint; its second start ends well.
    accounts = Accounts(row("7", "PREEMPTED", 0, 3600), row("7", "COMPLETED", 4000, 1800))
    reached = [T0.timestamp() + second for second in (1000.0, 3500.0, 5700.0)]
    report = cost_report(run, [stage("train", reached)], {}, "generate", accounts)
    rows = report.stages["train"]
    assert rows["preempted"].gpu_h == pytest.approx(4.0)
    assert rows["preempted"].lost_gpu_h == pytest.approx(4 * 100 / 3600)
    assert rows["completed"].lost_gpu_h == 0
    assert report.total.gpu_h == pytest.approx(4 * 5400 / 3600)
    assert (report.total.starts, report.source, accounts.asked) == (2, "accounting", 1)


def test_a_start_that_published_nothing_is_lost(run: RunDir) -> None:
    submitted(run, ("generate", "7"))
    stand(run, "generate", [(5000, "n1")])
    report = cost_report(
        run,
        [stage("generate")],
        {},
        "generate",
        Accounts(row("7", "NODE_FAIL", 0, 1200), row("7", "COMPLETED", 4000, 1200)),
    )
    cost = report.of("generate")
    assert cost.lost_gpu_h == pytest.approx(4 * 1200 / 3600)
    assert cost.gpu_h == pytest.approx(2 * cost.lost_gpu_h)


def test_an_element_is_not_credited_with_the_shards_of_another(run: RunDir) -> None:
    submitted(run, ("generate", "7"), gpus=1)
    stand(run, "generate", [(900, "n1.site"), (1200, "n2.site")])
    accounts = Accounts(
        row("7_0", "FAILED", 0, 1800, gpus=1, nodes="n1"),
        row("7_1", "TIMEOUT", 0, 1800, gpus=1, nodes="n2"),
    )
    rows = cost_report(run, [stage("generate")], {}, "generate", accounts).stages["generate"]
    assert rows["failed"].lost_gpu_h == pytest.approx(900 / 3600)
    assert rows["timeout"].lost_gpu_h == pytest.approx(600 / 3600)


def test_hours_per_thousand_images_of_generation_and_of_the_line(run: RunDir) -> None:
    submitted(run, ("train", "7"), ("generate", "8"))
    stand(run, "generate", [(100, "n1"), (200, "n1")], samples=1000)
    accounts = Accounts(row("7", "COMPLETED", 0, 3600), row("8", "COMPLETED", 0, 1800))
    report = cost_report(run, [stage("train", []), stage("generate")], {}, "generate", accounts)
    assert report.images == 2000
    assert report.per_thousand(report.of("generate")) == pytest.approx(1.0)
    assert report.per_thousand(report.total) == pytest.approx(3.0)


def test_gpus_that_a_site_does_not_account_for_are_those_asked_for(run: RunDir) -> None:
    submitted(run, ("train", "7"), gpus=8)
    accounts = Accounts(row("7", "COMPLETED", 0, 3600, gpus=0))
    assert cost_report(
        run, [stage("train", [])], {}, "generate", accounts
    ).total.gpu_h == pytest.approx(8.0)


def attempts(run: RunDir, name: str, *rows: dict[str, object]) -> None:
    path = run.stage(name) / "attempts.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))


def began(number: int, second: float) -> dict[str, object]:
    return {"attempt": number, "from": 0, "host": "elsewhere", "job": "7", "pid": 1,
            "started": utc(second)}  # fmt: skip


def ended(number: int, second: float, code: int) -> dict[str, object]:
    return {"attempt": number, "to": 1, "exit": code, "reason": "r", "ended": utc(second)}


def test_attempts_and_the_width_asked_for_stand_in_for_accounting(run: RunDir) -> None:
    submitted(run, ("train", "7"))
    attempts(
        run, "train",
        began(0, 0), ended(0, 1800, 1), began(1, 2000), ended(1, 9000, 137), began(2, 9000),
        ended(2, 10_800, 0),
    )  # fmt: skip
    reached = [T0.timestamp() + second for second in (900.0, 2900.0, 10_700.0)]
    asked = {"train": Resources(nodes=2, tasks_per_node=2, cpus_per_task=8, gpus_per_node=2)}
    report = cost_report(run, [stage("train", reached)], asked, "generate", Accounts())
    rows = report.stages["train"]
    assert report.source == "attempts"
    assert "no accounting" in report.notes[0]
    assert rows["failed"].gpu_h == pytest.approx(4 * 0.5)
    assert rows["failed"].lost_gpu_h == pytest.approx(4 * 0.25)
    # The next attempt wrote when it found the killed one; it is counted to what it left.
    assert rows["killed"].gpu_h == pytest.approx(4 * 900 / 3600)
    assert rows["completed"].cpu_h == pytest.approx(32 * 0.5)


def test_a_run_on_this_machine_costs_cpu_hours(run: RunDir) -> None:
    attempts(run, "tile", began(0, 0), ended(0, 3600, 0))
    report = cost_report(run, [stage("tile")], {"tile": Resources(cpus_per_task=2)}, "generate")
    assert (report.unit, report.total.cpu_h, report.notes) == ("CPU-h", 2.0, ())


def big_report(run: RunDir) -> CostReport:
    submitted(run, ("caption-train", "7"), ("generate", "8"))
    stand(run, "generate", [(100, "n1")])
    return cost_report(
        run,
        [stage("caption-train", []), stage("generate")],
        {},
        "generate",
        Accounts(
            row("7", "OUT_OF_MEMORY", 0, 90_000, gpus=512), row("8", "COMPLETED", 0, 86_400, 512)
        ),
    )


def test_the_report_fits_80_columns(run: RunDir) -> None:
    lines = report_lines(big_report(run))
    assert max(len(line) for line in lines if str(run.root) not in line) <= 80
    assert any(line.split()[:2] == ["caption-train", "failed"] for line in lines)
    assert any("per thousand images for generation" in line for line in lines)


def test_the_report_as_json_adds_up(run: RunDir) -> None:
    document = json.loads(json.dumps(big_report(run).to_json()))
    parts = [cost["gpu_h"] for rows in document["stages"].values() for cost in rows.values()]
    assert document["total"]["gpu_h"] == pytest.approx(sum(parts))
    assert document["unit"] == "GPU-h"
