"""A soak test: whole pipelines on a real Slurm under random faults, with nobody at the console.

    python tools/soak.py [--minutes 60] [--every-s 30] [--seed N] [--keep F]

One pipeline first runs undisturbed by the local executor. Then, until the time is up, others run as
jobs of a mini cluster (`tools/mini_slurm.py`) while a fault is drawn every so many seconds from
`tools/soak_faults.py`. Nobody types a command after `sarhpc run`: `sarhpc supervise` alone submits
what was lost, and is itself killed now and then. Each pipeline has to end complete, with the bytes
of the undisturbed one; one that does not is kept, with the logs of the cluster. Prints every fault,
and at the end what they cost as a table (`tools/soak_measures.py`); with `--json` as a document.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from mini_slurm import MiniSlurm
from soak_faults import FAULTS, Scene
from soak_folder import soak_folder
from soak_measures import Injection, Progress, live_attempts, table, with_costs

from hpc.job.pipeline import Stage
from hpc.publish import digest_file
from hpc.store.rundir import RunDir, open_run

REPOSITORY = Path(__file__).resolve().parents[1]
PROFILE = """\
executor: slurm
partition: main
gpu_partition: main
requeue: {requeue}
grace_s: 20
env: {{OMP_NUM_THREADS: "1", HF_HUB_OFFLINE: "1", DS_ACCELERATOR: cpu}}
resources: {{cpus_per_task: 2, mem_gb: 1, time_min: 20}}
stages:
  train: {{nodes: 2, tasks_per_node: 1, mem_gb: 1, time_min: 20}}
  generate: {{elements: 3, mem_gb: 1, time_min: 20}}
"""
SMALL = (
    "simulate.scenes=8",
    "simulate.size_px=512",
    "tile.shard_samples=16",
    "train.max_steps=60",
    "train.checkpoint_every_steps=5",
    "train.log_every_steps=1",
    "train.validation_every_steps=0",
    "train.global_batch=8",
    "train.micro_batch=4",
    "generate.images=48",
    "generate.steps=10",
    "generate.shard_samples=4",
    "generate.gate=null",
    "compare.images=8",
    "evaluate.tiles=60",
    "evaluate.bootstrap=10",
    "evaluate.orientation_steps=0",
)
"""The demo in about two minutes of two cores."""
RECOVERY_S = 180.0
"""How long a fault waits for the pipeline to recover from the one before."""
STALLED_S = 1200
"""Without progress for so long, a pipeline has not come back by itself; a slow machine is none."""


@dataclass
class Outcome:
    """One pipeline under faults."""

    seed: int
    seconds: float = 0.0
    complete: bool = False
    differs: list[str] = field(default_factory=list)
    """Outputs whose bytes are not those of the undisturbed pipeline."""
    injections: list[Injection] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether it ended complete and byte-identical."""
        return self.complete and not self.differs


def main(argv: Sequence[str] | None = None) -> int:
    """Run the soak and print its figures; 0 if every pipeline ended complete and identical."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every-s", type=float, default=30.0, help="mean time between faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--requeue", default="scontrol", choices=("scontrol", "chain"))
    parser.add_argument(
        "--keep", type=Path, default=REPOSITORY / "build" / "soak", help="keeps runs that failed"
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    words = parser.parse_args(argv)
    with soak_folder() as folder:
        calm = _undisturbed(folder / "runs")
        cluster = MiniSlurm(folder / "cluster").start()
        outcomes = list(_soak(cluster, folder / "runs", calm, words))
    _print(outcomes)
    if words.json is not None:
        words.json.write_text(json.dumps([asdict(each) for each in outcomes], indent=1))
    return 0 if outcomes and all(each.passed for each in outcomes) else 1


def _undisturbed(folder: Path) -> dict[str, str]:
    begun = time.monotonic()
    run = folder / "calm"
    done = _sarhpc(dict(os.environ), "run", run, *_configuration(), "--executor", "local", "--wait")
    if done.returncode:
        raise SystemExit(f"the undisturbed pipeline failed:\n{done.stdout}{done.stderr}")
    print(f"undisturbed, local executor: {time.monotonic() - begun:.0f} s", flush=True)
    return outputs(open_run(run))


def _configuration() -> tuple[str | Path, ...]:
    return ("--config", REPOSITORY / "configs" / "demo.yaml", *SMALL)


def _soak(
    cluster: MiniSlurm, folder: Path, calm: dict[str, str], words: argparse.Namespace
) -> Iterator[Outcome]:
    ends = time.monotonic() + 60 * words.minutes
    seed = words.seed
    profile = folder / "soak.yaml"
    profile.write_text(PROFILE.format(requeue=words.requeue))
    while time.monotonic() < ends:
        outcome = _one(cluster, folder / f"run{seed}", profile, seed, words.every_s, calm)
        print(
            f"seed={seed} seconds={outcome.seconds:.0f} faults={len(outcome.injections)} "
            f"complete={outcome.complete} differs={outcome.differs or 'nothing'}",
            flush=True,
        )
        yield outcome
        if not outcome.passed:
            _keep(cluster, folder / f"run{seed}", words.keep)
            return
        cluster.heal()
        shutil.rmtree(folder / f"run{seed}")
        seed += 1


def _keep(cluster: MiniSlurm, run: Path, folder: Path) -> None:
    """A copy of a run that failed, its status, the queue, and the logs of the cluster."""
    kept = folder / run.name
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(run, kept / "run", symlinks=True)
    shutil.copytree(cluster.root / "log", kept / "log")
    queue = cluster.run("squeue", "-a", "-t", "all", check=False).stdout
    nodes = cluster.run("sinfo", "-N", "-l", check=False).stdout
    status = _sarhpc(cluster.env, "status", run).stdout
    (kept / "state.txt").write_text(f"{status}\n{queue}\n{nodes}")
    print(f"kept in {kept}", flush=True)


def _one(
    cluster: MiniSlurm, root: Path, profile: Path, seed: int, every_s: float, calm: dict[str, str]
) -> Outcome:
    begun = time.monotonic()
    done = _sarhpc(cluster.env, "run", root, *_configuration(), "--profile", profile)
    if done.returncode:
        raise SystemExit(f"not submitted:\n{done.stdout}{done.stderr}")
    run = open_run(root)
    with Progress(run, _stages(run)) as progress:
        outcome = _disturbed(cluster, run, progress, Outcome(seed), every_s)
    outcome.seconds = time.monotonic() - begun
    if outcome.complete:
        made = outputs(run)
        outcome.differs = sorted(key for key in calm | made if calm.get(key) != made.get(key))
        outcome.injections = with_costs(run, outcome.injections, progress.checkpoints)
    return outcome


def _disturbed(
    cluster: MiniSlurm, run: RunDir, progress: Progress, outcome: Outcome, every_s: float
) -> Outcome:
    """A fault every `every_s` s or so until the pipeline is complete or stands still."""
    draw, stages, begun = random.Random(outcome.seed), _stages(run), time.time()
    supervisor = _supervise(cluster, run.root)
    try:
        while time.time() - progress.moved < STALLED_S:
            until, last = time.time() + draw.expovariate(1 / every_s), time.time()
            # Three of four wait until it has gone on: kills alone would exhaust its budget.
            patient = last + RECOVERY_S if draw.random() < 0.75 else 0.0
            while not progress.sealed and (
                time.time() < until or (progress.moved < last and time.time() < patient)
            ):
                time.sleep(0.5)
                if supervisor.poll() is not None and not progress.sealed:
                    time.sleep(5)
                    supervisor = _supervise(cluster, run.root)
            if progress.sealed:
                with contextlib.suppress(psutil.TimeoutExpired):
                    supervisor.wait(timeout=300)
                # It may have been killed, and then another one has nothing to do.
                outcome.complete = _sarhpc(cluster.env, "supervise", run.root).returncode == 0
                break
            scene, begins = Scene(cluster, run.root, draw, supervisor), time.time()
            live = live_attempts(run, stages)
            # The first that finds something to break.
            for fault in draw.sample(FAULTS, len(FAULTS)):
                at = time.time()
                if (what := fault(scene)) is not None:
                    print(f"  {begins - begun:6.0f} s {fault.__name__}: {what}", flush=True)
                    outcome.injections.append(Injection(fault.__name__, what, at, live))
                    break
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor.kill()
    return outcome


def _supervise(cluster: MiniSlurm, root: Path) -> psutil.Popen:
    command = [sys.executable, "-m", "sarhpc.cli", "supervise", str(root), "--every", "10"]
    with (root.parent / f"supervise-{root.name}.log").open("ab") as log:
        return psutil.Popen(command, env=cluster.env, stdout=log, stderr=log)


def _sarhpc(env: dict[str, str], *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sarhpc.cli", *map(str, words)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def _stages(run: RunDir) -> list[Stage]:
    from sarhpc.stages.registry import line_of_stages
    from sarhpc.stages.run_config import load_run_config

    return list(line_of_stages(load_run_config(run)))


def outputs(run: RunDir) -> dict[str, str]:
    """SHA-256 of every shard of a run, and of the weights of its last checkpoint and its export."""
    found: dict[str, str] = {}
    for stage in ("tile", "caption", "train", "export", "generate"):
        for shard, record in run.ledger(stage).records().items():
            path = Path(record.path)
            path = path if path.is_absolute() else run.root / path
            files = sorted(each for each in path.rglob("*") if each.is_file())
            for file in files if path.is_dir() else [path]:
                if file.suffix not in (".json", ".md"):  # those tell times
                    name = file.name if file == path else file.relative_to(path).as_posix()
                    found[f"{stage}/{shard}/{name}"] = digest_file(file).sha256
    return found


def _print(outcomes: Sequence[Outcome]) -> None:
    injections = [each for outcome in outcomes for each in outcome.injections]
    passed = sum(each.passed for each in outcomes)
    seconds = sorted(each.seconds for each in outcomes)
    print(f"\n{table(injections)}\n")
    print(
        f"{len(injections)} faults in {sum(seconds) / 60:.0f} min; {passed} of {len(outcomes)} "
        f"pipelines complete and identical, in {seconds[0]:.0f} to {seconds[-1]:.0f} s each; "
        f"{sum(each.lost_steps for each in injections)} steps and "
        f"{sum(each.lost_s for each in injections):.0f} s of shards made again"
    )


if __name__ == "__main__":
    sys.exit(main())
