"""An array of a thousand elements of which some are killed: what is left is submitted again.

`pytest -s -m long tests/slurm/test_thousand_elements.py` prints seconds and memory of each command.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from bench_slurm import STAGE, LightRun, light_run, submitted
from chain_runs import wait_for
from mini_slurm import MiniSlurm
from slowness import slowness

from hpc.store.submissions import read_submissions

ELEMENT = """\
#!/bin/sh
# As an element does: a start row, its shards of the list, an end row. Some are killed in between.
cd '{run}' || exit
element=$SLURM_ARRAY_TASK_ID
rows={stage}/attempts/e$(printf %05d "$element").jsonl
number=0
if [ -e "$rows" ]; then number=$(grep -c from "$rows"); fi
named='"attempt": '$number', "element": '$element
started=$(date -u +%FT%TZ)
who='"job": "'$SLURM_JOB_ID'", "host": "'$SLURMD_NODENAME'", "pid": '$$
echo "{{$named, $who, \\"from\\": 0, \\"restart\\": 0, \\"started\\": \\"$started\\"}}" >> "$rows"
if rm "killed/$element" 2> /dev/null; then kill -9 $$; fi
made=0
for id in $(sed -n "$((element + 1))~${{SLURM_ARRAY_TASK_COUNT}}p" todo); do
    mv "ready/$id.json" "{stage}/records/${{id%???}}/$id.json" || exit
    made=$((made + 1))
done
echo "{{$named, \\"to\\": $made, \\"exit\\": 0, \\"reason\\": \\"done\\"}}" >> "$rows"
"""
VERBS = {"status": 25.0, "supervise --once": 60.0, "resume": 60.0}
"""Longest times on a calm machine, s."""


@pytest.fixture(autouse=True)
def _user(cluster: MiniSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is a user of the cluster."""
    for name, told in cluster.env.items():
        monkeypatch.setenv(name, told)


def prepared(folder: Path, shards: int, elements: int, killed: int) -> LightRun:
    """A run whose elements write their attempts, some of which are killed before they work."""
    light = light_run(folder, shards, elements, steps=False)
    (folder / "element.sh").write_text(ELEMENT.format(run=light.run.root, stage=STAGE))
    (light.run.stage(STAGE) / "attempts").mkdir()
    (light.run.root / "killed").mkdir()
    for element in random.Random(7).sample(range(elements), killed):
        (light.run.root / "killed" / str(element)).touch()
    return light


def missing(light: LightRun) -> list[str]:
    """The shards to divide between the elements of the next submission."""
    found = [task.id for task in light.run.ledger(STAGE).missing(light.plan)]
    (light.run.root / "todo").write_text("".join(f"{id}\n" for id in found))
    return found


def measured(light: LightRun, verb: str) -> str:
    """What a command prints; its seconds and memory stay within bounds and are printed."""
    name, *flags = verb.split()
    command = [sys.executable, "-m", "sarhpc.cli", name, str(light.run.root), *flags]
    begun = time.monotonic()
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen(command, stdout=out, stderr=out)
        _, code, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(code)
        seconds = time.monotonic() - begun
        out.seek(0)
        text = out.read().decode()
    mib = used.ru_maxrss / 1024
    cpu = used.ru_utime + used.ru_stime
    print(f"{verb}: {seconds:.1f} s, {cpu:.1f} s of CPU, {mib:.0f} MiB")
    assert child.returncode == 0, text
    assert seconds < VERBS[verb] * slowness()
    assert mib < 500
    return text


def check(cluster: MiniSlurm, light: LightRun, killed: int) -> None:
    """Every shard is made once, those of the killed elements after one pass of a supervisor."""
    missing(light)
    job, seconds, _ = submitted(light)
    print(f"\narray of {light.elements} elements submitted in {seconds:.1f} s")
    begun = time.monotonic()
    wait_for(lambda: light.run.ledger(STAGE).recorded_ids(), 60, "the first element")
    measured(light, "status")
    wait_for(lambda: not cluster.squeue("-j", job), 600, "every element ends")
    print(f"all elements ended after {time.monotonic() - begun:.0f} s")
    lost = missing(light)
    assert len(lost) == killed * len(light.plan.shards) // light.elements
    assert "nothing is on its way" in " ".join(measured(light, "status").split())
    assert f"{STAGE}: " in measured(light, "supervise --once")
    again = read_submissions(light.run)[-1]
    assert again.shards[STAGE] == tuple(lost)
    assert "nothing to submit" in measured(light, "resume")
    wait_for(lambda: not light.run.ledger(STAGE).missing(light.plan), 300, "what was lost")
    assert not list((light.run.root / "ready").iterdir()), "every shard once"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_killed_elements_of_a_large_array_leave_is_submitted_again(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    check(cluster, prepared(tmp_path, 200, 100, 8), 8)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_what_killed_elements_of_a_thousand_leave_is_submitted_again(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    check(cluster, prepared(tmp_path, 2000, 1000, 50), 50)
