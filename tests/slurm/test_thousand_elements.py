"""An array of a thousand elements of which some are killed: what is left is submitted again.

`pytest -s -m long tests/slurm/test_thousand_elements.py` prints seconds and memory of each command.
"""

from __future__ import annotations

import random
import subprocess
import sys
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
TOLD = """\
import sys
from sarhpc.cli import main
code = main(sys.argv[1:])
print(*[line for line in open("/proc/self/status") if line.startswith("VmHWM")])
sys.exit(code)
"""
"""A command that also prints how much memory it had at most; its parent counts its own as well."""
VERBS = {"status": 25.0, "supervise --once": 60.0, "resume": 60.0}
"""Longest times on a calm machine, s."""


@pytest.fixture(autouse=True)
def _user(cluster: MiniSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is a user of the cluster."""
    for name, reported in cluster.env.items():
        monkeypatch.setenv(name, reported)


def prepared(folder: Path, shards: int, elements: int) -> LightRun:
    """A run whose elements write their attempts, some of which are killed before they work."""
    light = light_run(folder, shards, elements, steps=False)
    (folder / "element.sh").write_text(ELEMENT.format(run=light.run.root, stage=STAGE))
    (light.run.stage(STAGE) / "attempts").mkdir()
    (light.run.root / "killed").mkdir()
    return light


def kill(light: LightRun, elements: int, count: int) -> None:
    """Choose elements of the next array that are killed."""
    for element in random.Random(7).sample(range(elements), count):
        (light.run.root / "killed" / str(element)).touch()


def missing(light: LightRun) -> list[str]:
    """The shards to divide between the elements of the next submission."""
    found = [task.id for task in light.run.ledger(STAGE).missing(light.plan)]
    (light.run.root / "todo").write_text("".join(f"{id}\n" for id in found))
    return found


def measured(light: LightRun, verb: str) -> str:
    """What a command prints; its seconds and memory stay within bounds and are printed."""
    name, *flags = verb.split()
    command = [sys.executable, "-c", TOLD, name, str(light.run.root), *flags]
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.monotonic() - begun
    assert done.returncode == 0, done.stdout + done.stderr
    mib = int(done.stdout.split()[-2]) >> 10
    print(f"{verb}: {seconds:.1f} s, {mib} MiB")
    assert seconds < VERBS[verb] * slowness()
    assert mib < 300
    return done.stdout


def ended(cluster: MiniSlurm, light: LightRun) -> list[str]:
    """The shards that are left when every element of the newest array has ended."""
    [job] = read_submissions(light.run)[-1].jobs
    begun = time.monotonic()
    wait_for(lambda: not cluster.squeue("-j", job.job_id), 600, "every element ends")
    print(f"{job.elements} elements ended after {time.monotonic() - begun:.0f} s")
    return missing(light)


def check(cluster: MiniSlurm, light: LightRun, killed: int) -> None:
    """Every shard is made once: those of killed elements by a supervisor's pass, then `resume`."""
    missing(light)
    kill(light, light.elements, killed)
    _, seconds, _ = submitted(light)
    print(f"\narray of {light.elements} elements submitted in {seconds:.1f} s")
    measured(light, "status")
    lost = ended(cluster, light)
    assert len(lost) == killed * len(light.plan.shards) // light.elements
    assert "nothing is on its way" in " ".join(measured(light, "status").split())

    kill(light, len(lost), killed // 4)
    assert "submitted again as job" in measured(light, "supervise --once")
    assert read_submissions(light.run)[-1].shards[STAGE] == tuple(lost)
    lost = ended(cluster, light)
    assert len(lost) == killed // 4

    measured(light, "resume")
    assert read_submissions(light.run)[-1].shards[STAGE] == tuple(lost)
    assert ended(cluster, light) == []
    assert not list((light.run.root / "ready").iterdir()), "every shard once"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_killed_elements_of_a_large_array_leave_is_submitted_again(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    check(cluster, prepared(tmp_path, 200, 100), 8)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_what_killed_elements_of_a_thousand_leave_is_submitted_again(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    check(cluster, prepared(tmp_path, 2000, 1000), 48)
