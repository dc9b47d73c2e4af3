"""Scale on a real Slurm: a ledger of thousands of shards and a job array of thousands of elements.

    python tools/bench_slurm.py [--shards 10000] [--elements 5000]

Plans, submits and tracks one `generate` stage on a mini cluster (`tools/mini_slurm.py`). Only the
images are simulated: instead of the interpreter, each element runs a few lines of shell that move
the prepared records of its shards into place; with `--without-srun` the batch shell runs them
itself, which saves a job step for each. Prints seconds and the number of Slurm commands.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mini_slurm import MiniSlurm

from hpc.cluster import slurm
from hpc.cluster.profile import Profile, load_profile
from hpc.config import fingerprint, loads, to_yaml
from hpc.observe.status import RunStatus, run_status
from hpc.store.ledger import RECORD_SCHEMA, Record
from hpc.store.plan import Plan, make_plan, publish_plan
from hpc.store.rundir import RunDir, create_run, now
from sarhpc.launch.slurm import submit_stages
from sarhpc.stages.config import RunConfig
from sarhpc.stages.registry import line_of_stages, stage_named
from sarhpc.stages.run_config import load_run_config

STAGE = "generate"
PROFILE = """\
executor: slurm
partition: main
python: '{python}'
requeue: none
max_array: {elements}
env: {{PATH: '{path}'}}
stages:
  generate: {{elements: {elements}, mem_gb: 1, time_min: 60}}
"""
ELEMENT = """\
#!/bin/sh
# Element i of n makes the shards i, i + n, i + 2 n, ...
cd '{run}' || exit
shard=$SLURM_ARRAY_TASK_ID
while [ "$shard" -lt {shards} ]; do
    id=$(printf %06d "$shard")
    mv "ready/$id.json" "generate/records/${{id%???}}/$id.json" || exit
    shard=$((shard + {elements}))
done
"""


@dataclasses.dataclass(frozen=True)
class LightRun:
    """A run that waits for its array, and the profile to submit it with."""

    run: RunDir
    plan: Plan
    profile: Profile
    elements: int


@dataclasses.dataclass(frozen=True)
class Look:
    """One query of the status, its result and its cost."""

    status: RunStatus
    seconds: float
    queue_s: float
    """Of these, seconds that Slurm took for its answer."""
    commands: dict[str, int]


class _TimedSlurm:
    """Slurm, measuring the seconds it takes to answer."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def queue(self, ids: Sequence[str] | None = None, *, retries: int = 1) -> list[slurm.QueuedJob]:
        """As `slurm.queue`."""
        with self._timed():
            return slurm.queue(ids, retries=retries)

    def accounting(self, ids: Sequence[str], since: str) -> list[slurm.AccountedJob]:
        """As `slurm.accounting`."""
        with self._timed():
            return slurm.accounting(ids, since)

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - begun


def light_run(folder: Path, shards: int, elements: int, *, steps: bool = True) -> LightRun:
    """A run whose generation is planned, with a prepared record for each shard.

    Args:
        folder: for the run, its profile and its elements' script.
        shards: of the plan.
        elements: of the array.
        steps: whether each element is a job step, as usual.
    """
    # Settings that `resume` accepts as well.
    overrides = ["simulate.scenes=4", "generate.prompts=[a lake]", f"generate.images={shards}"]
    config = loads(RunConfig, "", overrides)
    run = create_run(folder / "scale", to_yaml(config), fingerprint(config), overrides)
    _seal_others(run)
    plan = make_plan(STAGE, [{"prompts": ["a lake"], "images": [[0, n]]} for n in range(shards)])
    publish_plan(plan, run.plan_file(STAGE))
    ready = run.root / "ready"
    ready.mkdir()
    for shard in plan.shards:
        (run.stage(STAGE) / "records" / shard.id[:3]).mkdir(parents=True, exist_ok=True)
        record = Record(shard.id, plan.id, "none", 1, 1, "0" * 64, 0, "light", now(), now())
        document = {"schema": RECORD_SCHEMA, **dataclasses.asdict(record)}
        (ready / f"{shard.id}.json").write_text(json.dumps(document))
    element = folder / "element.sh"
    element.write_text(ELEMENT.format(run=run.root, shards=shards, elements=elements))
    element.chmod(0o755)
    path = (
        os.environ["PATH"] if steps else f"{_without_steps(folder, element)}:{os.environ['PATH']}"
    )
    profile = folder / "scale.yaml"
    profile.write_text(PROFILE.format(python=element, elements=elements, path=path))
    return LightRun(run, plan, load_profile(profile), elements)


def _without_steps(folder: Path, element: Path) -> Path:
    """A folder with an `srun` that runs the element without a job step."""
    srun = folder / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(f"#!/bin/sh\nexec '{element}'\n")
    srun.chmod(0o755)
    return srun.parent


def _seal_others(run: RunDir) -> None:
    """Seal every stage but the generation, with one record each."""
    for stage in line_of_stages(load_run_config(run)):
        if stage.name == STAGE:
            continue
        plan = make_plan(stage.name, [{}])
        publish_plan(plan, run.plan_file(stage.name))
        ledger = run.ledger(stage.name)
        ledger.publish(Record("000000", plan.id, "-", 0, 0, "", 0, "-", now(), now()))
        ledger.seal(plan)


def submitted(light: LightRun) -> tuple[str, float, dict[str, int]]:
    """Id of the array, seconds that submitting it took, and the commands called."""
    slurm.COUNTS.clear()
    begun = time.monotonic()
    stage = stage_named(load_run_config(light.run), STAGE)
    with contextlib.redirect_stdout(io.StringIO()):
        record = submit_stages(light.run, [stage], light.profile)
    assert record is not None
    [job] = record.jobs
    return job.job_id, time.monotonic() - begun, dict(slurm.COUNTS)


def look(light: LightRun) -> Look:
    """One status of the stage and what it cost."""
    slurm.COUNTS.clear()
    timed, begun = _TimedSlurm(), time.monotonic()
    status = run_status(light.run, [stage_named(load_run_config(light.run), STAGE)], timed)
    return Look(status, time.monotonic() - begun, timed.seconds, dict(slurm.COUNTS))


def tracked(light: LightRun, every_s: float, within_s: float) -> list[Look]:
    """Queries of the stage until each of its shards has a record, or the time is over."""
    looks, until = [look(light)], time.monotonic() + within_s
    while looks[-1].status.stages[0].disk.done < len(light.plan.shards):
        if time.monotonic() > until:
            break
        time.sleep(every_s)
        looks.append(look(light))
    return looks


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0 if every shard was made once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--elements", type=int, default=5_000)
    parser.add_argument("--within-s", type=float, default=1800.0, help="longest wait for the array")
    parser.add_argument("--without-srun", action="store_true", help="elements make no job step")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="mini-slurm-") as folder:
        cluster = MiniSlurm(Path(folder) / "cluster")
        Path(folder).chmod(0o755)
        try:
            cluster.start()
            os.environ.update(cluster.env)
            return _measure(Path(folder), arguments)
        finally:
            cluster.stop()


def _measure(folder: Path, arguments: argparse.Namespace) -> int:
    shards, elements = arguments.shards, arguments.elements
    begun = time.monotonic()
    light = light_run(folder, shards, elements, steps=not arguments.without_srun)
    print(f"{shards} shards planned, their records prepared   {time.monotonic() - begun:7.2f} s")
    job, seconds, commands = submitted(light)
    print(f"array of {elements} elements submitted, job {job}      {seconds:7.2f} s  {commands}")
    begun = time.monotonic()
    looks = tracked(light, every_s=5.0, within_s=arguments.within_s)
    spent = time.monotonic() - begun
    done = looks[-1].status.stages[0].disk.done
    print(f"{done} shards made by Slurm                   {spent:7.2f} s")
    worst = max(looks, key=lambda each: each.seconds - each.queue_s)
    most = {name for each in looks for name, count in each.commands.items() if count}
    calls = {name: max(each.commands.get(name, 0) for each in looks) for name in sorted(most)}
    own = worst.seconds - worst.queue_s
    print(f"status, slowest of {len(looks)}: {own:.2f} s, Slurm's answer {worst.queue_s:.2f} s")
    print(f"most commands of one status: {calls}")
    begun = time.monotonic()
    if done == shards:
        light.run.ledger(STAGE).seal(light.plan)
        spent = time.monotonic() - begun
        last = look(light)
        print(f"sealed {spent:.2f} s; status then {last.seconds:.2f} s "
              f"{last.commands}, {last.status.stages[0].state}")  # fmt: skip
    return 0 if done == shards else 1


if __name__ == "__main__":
    sys.exit(main())
