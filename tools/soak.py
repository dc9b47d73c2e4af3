"""A soak test: whole pipelines on a real Slurm under random faults, with nobody at the console.

    python tools/soak.py [--minutes 60] [--every-s 30] [--seed N] [--folder F]

One pipeline first runs undisturbed by the local executor. Then, until the time is up, others run as
jobs of a mini cluster (`tools/mini_slurm.py`) while a fault is drawn every so many seconds from
`tools/soak_faults.py`. Nobody types a command after `sarhpc run`: `sarhpc supervise` alone submits
what was lost, and is itself killed now and then. Each pipeline has to end complete, with the bytes
of the undisturbed one. Prints every fault, what it cost and how long recovery took; with `--json`
the same as one document.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from mini_slurm import MiniSlurm
from soak_faults import FAULTS, Scene

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
    "compare.images=8",
    "evaluate.tiles=60",
    "evaluate.bootstrap=10",
)
"""The demo in about two minutes of two cores."""
STALLED_S = 900
"""Without progress for so long, a pipeline has not come back by itself."""


@dataclass(frozen=True)
class Injection:
    """One fault that was injected, and what came after it."""

    fault: str
    what: str
    at_s: float
    """Since the pipeline was submitted, s."""
    lost_steps: int
    """Steps logged since the newest checkpoint when it was injected."""
    recovery_s: float | None = None
    """From the fault to the next new record or checkpoint; None if the next fault came first."""


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
    parser.add_argument("--folder", type=Path, help="keeps the runs; default: a temporary one")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    words = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="mini-slurm-") as short:
        folder = words.folder or Path(short) / "runs"
        folder.mkdir(parents=True, exist_ok=True)
        Path(short).chmod(0o755)
        cluster = MiniSlurm(Path(short) / "cluster")
        with _own_file_system(folder):
            try:
                calm = _undisturbed(folder)
                cluster.start()
                outcomes = list(_soak(cluster, folder, calm, words))
            finally:
                cluster.stop()
    _print(outcomes)
    if words.json is not None:
        words.json.write_text(json.dumps([asdict(each) for each in outcomes], indent=1))
    return 0 if outcomes and all(each.passed for each in outcomes) else 1


@contextlib.contextmanager
def _own_file_system(folder: Path) -> Iterator[None]:
    """A file system in memory for the runs, where that is allowed: one whose disk can be full."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3g", "soak", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        print("no file system of its own (that takes root): no fault `fill_disk`")
        yield
        return
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


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
            return
        shutil.rmtree(folder / f"run{seed}")
        cluster.heal()
        seed += 1


def _one(
    cluster: MiniSlurm, root: Path, profile: Path, seed: int, every_s: float, calm: dict[str, str]
) -> Outcome:
    outcome, draw = Outcome(seed), random.Random(seed)
    begun = time.monotonic()
    done = _sarhpc(cluster.env, "run", root, *_configuration(), "--profile", profile)
    if done.returncode:
        raise SystemExit(f"not submitted:\n{done.stdout}{done.stderr}")
    run = open_run(root)
    supervisor = _supervise(cluster, root)
    watch = _Watch(run)
    try:
        while (time.monotonic() - watch.moved) < STALLED_S:
            if supervisor.poll() == 0 and _is_sealed(run):
                outcome.complete = True
                break
            if supervisor.poll() is not None:
                supervisor = _supervise(cluster, root)
            if watch.wait(draw.expovariate(1 / every_s)):
                continue
            scene, fault = Scene(cluster, root, draw, supervisor), draw.choice(FAULTS)
            lost, when = watch.unsaved_steps(), time.monotonic()
            what = fault(scene)
            if what is None:
                continue
            print(f"  {when - begun:6.0f} s {fault.__name__}: {what}", flush=True)
            recovery = watch.recovery_s(when, within_s=every_s)
            outcome.injections.append(Injection(fault.__name__, what, when - begun, lost, recovery))
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor.kill()
    outcome.seconds = time.monotonic() - begun
    if outcome.complete:
        made = outputs(run)
        outcome.differs = sorted(key for key in calm | made if calm.get(key) != made.get(key))
    return outcome


def _supervise(cluster: MiniSlurm, root: Path) -> psutil.Popen:
    log = (root / "supervise.log").open("ab")
    command = [sys.executable, "-m", "sarhpc.cli", "supervise", str(root), "--every", "10"]
    return psutil.Popen(command, env=cluster.env, stdout=log, stderr=log)


def _sarhpc(env: dict[str, str], *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sarhpc.cli", *map(str, words)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def _stages(run: RunDir) -> list[str]:
    from sarhpc.stages.registry import line_of_stages
    from sarhpc.stages.run_config import load_run_config

    return [stage.name for stage in line_of_stages(load_run_config(run))]


def _is_sealed(run: RunDir) -> bool:
    return all(run.ledger(stage).sealed for stage in _stages(run))


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


class _Watch:
    """Durable progress of a run: records and checkpoints."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._stages = _stages(run)
        self._seen = self._progress()
        self.moved = time.monotonic()
        """When it last grew."""

    def wait(self, seconds: float) -> bool:
        """Watch for so long; whether the run is complete before that."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._look()
            if _is_sealed(self._run):
                time.sleep(2)
                return True
            time.sleep(0.5)
        return False

    def recovery_s(self, since: float, within_s: float) -> float | None:
        """Seconds from `since` to the next progress; None if there is none in time."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            if self._look() or self.moved > since:
                return self.moved - since
            time.sleep(0.5)
        return None

    def unsaved_steps(self) -> int:
        """Steps of a running training after its newest checkpoint."""
        metrics = self._run.stage("train") / "metrics.jsonl"
        if not metrics.exists() or self._run.ledger("train").sealed:
            return 0
        lines = [line for line in metrics.read_text().splitlines() if line.endswith("}")]
        last = max((json.loads(line).get("step", 0) for line in lines), default=0)
        return max(last - self._step(), 0)

    def _look(self) -> bool:
        now = self._progress()
        moved = any(now[key] > self._seen.get(key, 0) for key in now)
        self._seen = now
        if moved:
            self.moved = time.monotonic()
        return moved

    def _progress(self) -> Counter[str]:
        found = Counter({name: len(self._run.ledger(name).recorded_ids()) for name in self._stages})
        found["step"] = self._step()
        found["sealed"] = sum(self._run.ledger(name).sealed for name in self._stages)
        return found

    def _step(self) -> int:
        steps = (self._run.stage("train") / "checkpoints").glob("step_*[0-9]")
        return max((int(path.name[5:]) for path in steps), default=0)


def _print(outcomes: Sequence[Outcome]) -> None:
    injections = [each for outcome in outcomes for each in outcome.injections]
    print(
        f"\n{'fault':20} {'times':>6} {'median recovery':>17} {'worst':>8} {'lost steps, most':>18}"
    )
    for name in sorted({each.fault for each in injections}):
        mine = [each for each in injections if each.fault == name]
        times = sorted(each.recovery_s for each in mine if each.recovery_s is not None)
        middle = f"{statistics.median(times):.0f} s" if times else "-"
        worst = f"{times[-1]:.0f} s" if times else "-"
        lost = max(each.lost_steps for each in mine)
        print(f"{name:20} {len(mine):6} {middle:>17} {worst:>8} {lost:18}")
    passed = sum(each.passed for each in outcomes)
    print(f"{len(injections)} faults; {passed} of {len(outcomes)} pipelines complete and identical")


if __name__ == "__main__":
    sys.exit(main())
