"""The whole command on a run of 10,000 shards a stage, as an operator types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from line_runs import tiny_run

from hpc.store.ledger import RECORD_SCHEMA, Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now

HEAVY = ["torch", "diffusers", "transformers", "rasterio", "dask", "distributed", "scipy",
         "submitit", "deepspeed"]  # fmt: skip
SHARDS = 10_000
LOOP = "for n in range(10_000_000): pass"
LOOP_S = 0.3
"""What the loop takes where the command takes 0.6 s: twice as much, on every machine so far."""


def seconds_of(*words: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Seconds of this command's own work: those of the clock also tell who else is at work."""
    clock = os.times()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    spent = os.times()
    assert done.returncode == 0, done.stderr
    user = spent.children_user - clock.children_user
    return user + spent.children_system - clock.children_system, done


def stand(run: RunDir, stage: str, *, sealed: bool) -> None:
    plan = make_plan(stage, [{"scene": f"s{n}", "tiles": [[n, n]] * 20} for n in range(SHARDS)])
    publish_plan(plan, run.plan_file(stage))
    ledger = run.ledger(stage)
    texts = {
        shard.id: json.dumps(
            {
                "schema": RECORD_SCHEMA,
                **vars(Record(shard.id, plan.id, "/d", 2, 9, "aa", 0, "h", now(), now())),
            }
        )
        for shard in plan.shards
    }
    if sealed:
        ledger.manifest.write_text("".join(f"{text}\n" for text in texts.values()))
        return
    for shard, text in list(texts.items())[:-500]:
        path = ledger.directory / "records" / shard[:3] / f"{shard}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = tiny_run(tmp_path / "run", tmp_path)
    stand(run, "tile", sealed=True)
    stand(run, "caption", sealed=False)
    return run


@pytest.mark.slow
def test_the_status_verb_takes_less_than_a_second_and_loads_nothing_heavy(run: RunDir) -> None:
    code = (
        "import sys, json\n"
        "from sarhpc.cli import main\n"
        f"code = main(['status', {str(run.root)!r}])\n"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]), file=sys.stderr)\n"
        "sys.exit(code)"
    )
    rounds = [(seconds_of("-c", code), seconds_of("-c", LOOP)) for _ in range(3)]
    done = rounds[-1][0][1]
    assert json.loads(done.stderr) == []
    assert "9500/10000" in done.stdout
    assert "20000" in done.stdout
    # Busy neighbours and slow machines stretch both alike.
    slowness = max(1.0, min(loop for _, (loop, _) in rounds) / LOOP_S)
    assert min(seconds for (seconds, _), _ in rounds) < 1.0 * slowness
