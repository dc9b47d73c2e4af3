"""The soak leaves nothing behind, and tells what a fault cost."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import soak_folder
from soak_measures import Injection, live_attempts, table, with_costs

from hpc.job.pipeline import Stage
from hpc.store.attempts import element_file
from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, create_run

pytestmark = pytest.mark.slow

HOLDER = """\
import subprocess, sys, time
from soak_folder import soak_folder
with soak_folder() as folder:
    left = subprocess.Popen(["sh", "-c", f"sleep 300; : {folder}"], start_new_session=True)
    print("folder", folder, left.pid, flush=True)
    time.sleep(300)
"""
TILE = Stage("tile", (), lambda _: make_plan("tile", []), lambda _: None)
BEGUN = 1_700_000_000
"""When the first attempt started, s since the epoch."""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_of_a_soak_is_left_however_it_ends(number: signal.Signals) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(soak_folder.__file__).parent)}
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        # Where mounting is not allowed, a line before says so.
        lines = iter(holder.stdout.readline, "")
        _, folder, left = next(line for line in lines if line.startswith("folder")).split()
        assert (Path(folder) / "runs").is_dir()
        holder.send_signal(number)
    until = time.monotonic() + 60
    while Path(folder).exists() or psutil.pid_exists(int(left)):
        assert time.monotonic() < until, "its folder or a process is left"
        time.sleep(0.1)
    assert folder not in Path("/proc/mounts").read_text()


def at(seconds: int) -> str:
    """RFC 3339 of so long after the first start."""
    moment = datetime.datetime.fromtimestamp(BEGUN + seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def write_rows(run: RunDir, *rows: dict[str, Any]) -> None:
    path = element_file(run.stage("tile"), None)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def start(number: int, seconds: int) -> dict[str, Any]:
    facts = {"attempt": number, "job": "7", "host": "n1", "pid": os.getpid(), "from": 0}
    return {**facts, "started": at(seconds)}


def finished(run: RunDir, shard: str, attempt: int, seconds: int) -> None:
    """A record of a shard that an attempt finished then."""
    plan = make_plan("tile", [{}] * 3)
    publish_plan(plan, run.plan_file("tile"))
    made = Record(shard, plan.id, "none", 1, 1, "0", attempt, "n1", at(seconds), at(seconds))
    run.ledger("tile").publish(made)


def test_a_fault_costs_what_was_under_way_and_the_time_until_the_stage_goes_on(
    tmp_path: Path,
) -> None:
    run = create_run(tmp_path / "run", "a: 1\n", "f00d")
    write_rows(run, start(0, 0))
    finished(run, "000000", 0, 10)
    live = live_attempts(run, [TILE])
    assert [(one.stage, one.number) for one in live] == [("tile", 0)]
    hit = Injection("kill_process", "SIGKILL", BEGUN + 25.0, live)
    harmless = Injection("freeze_process", "still", BEGUN + 45.0, live_attempts(run, []))
    killed = {"attempt": 0, "to": 1, "exit": 137, "reason": "killed: no end row was written"}
    write_rows(run, start(0, 0), killed, start(1, 40))
    for number, shard in enumerate(("000001", "000002")):
        finished(run, shard, 1, 50 + number)
    run.ledger("tile").seal(make_plan("tile", [{}] * 3))

    first, second = with_costs(run, [hit, harmless], [])
    assert (first.ended, first.recovery_s, first.lost_steps) == (1, 25.0, 0)
    assert first.lost_s == live[0].idle_s > 0
    assert (second.ended, second.recovery_s, second.lost_s) == (0, None, 0.0)
    rows = table([first, second]).splitlines()
    assert rows[-1].startswith("| all | 2 | 1 | 25 | 25 | 25 |")
    assert rows[2].startswith("| freeze_process | 1 | 0 | - |")
