"""Trainings on a real Slurm for the tests of what may befall them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chain_runs import sarhpc, wait_for, write_profile
from line_runs import stage_log, start_ranks, tiny_run
from mini_slurm import MiniSlurm

from hpc.job.pipeline import run_stage
from hpc.publish import digest_file
from hpc.store.rundir import RunDir, open_run
from hpc.store.submissions import SubmittedJob, read_submissions
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config

PATIENCE_S = 500
"""Longest wait on a machine that has much else to do."""

STEPS = 60
INTERVAL = 10
"""Steps between two checkpoints."""

TRAINING = [
    "train.epochs=1000",
    f"train.max_steps={STEPS}",
    f"train.checkpoint_every_steps={INTERVAL}",
    "train.validation_every_steps=0",
    "train.log_every_steps=1",
    "train.global_batch=8",
    "generate.prompts=[a lake,a field]",
]


def ready_to_train(root: Path, model: Path, overrides: Sequence[str] = ()) -> RunDir:
    """A run whose shards are captioned."""
    run = tiny_run(root, model, [*TRAINING, *overrides])
    for stage in ("simulate", "tile", "caption"):
        run_stage(run, stage_named(load_run_config(run), stage))
    return run


def copy_of(run: RunDir, root: Path) -> RunDir:
    """The same run once more; its shards stay where they are."""
    shutil.copytree(run.root, root)
    root.chmod(0o700)
    return open_run(root)


def train_undisturbed(captioned: RunDir, root: Path) -> RunDir:
    """The training as two processes of this machine make it."""
    run = copy_of(captioned, root)
    codes = [rank.wait(400) for rank in start_ranks(run, "train")]
    assert codes == [0, 0], stage_log(run, "train")
    return run


def profile_of(folder: Path, tasks: int, *more: str, partition: str = "main") -> Path:
    """A profile that trains on two nodes with `tasks` tasks each."""
    path = write_profile(folder, *more)
    text = path.read_text().replace("partition: main", f"partition: {partition}")
    text = text.replace("{nodes: 2, tasks_per_node: 1,", f"{{nodes: 2, tasks_per_node: {tasks},")
    path = folder / f"{partition}{tasks}.yaml"
    path.write_text(text)
    return path


def submit(cluster: MiniSlurm, run: RunDir, stage: str, profile: Path) -> SubmittedJob:
    """The first job of `stage`, submitted alone."""
    done = sarhpc(cluster, stage, run.root, "--profile", profile)
    assert done.returncode == 0, done.stderr
    return read_submissions(run)[-1].of(stage)[0]


def submit_to_export(cluster: MiniSlurm, run: RunDir, profile: Path) -> tuple[str, str]:
    """Job ids of the training and of the export that waits for it."""
    chain = ("run", run.root, "--from", "train", "--until", "export", "--profile", profile)
    done = sarhpc(cluster, *chain)
    assert done.returncode == 0, done.stderr
    [record] = read_submissions(run)
    return record.of("train")[0].job_id, record.of("export")[0].job_id


def newest_step(run: RunDir) -> int:
    """Step of the newest checkpoint, 0 without any."""
    steps = (run.stage("train") / "checkpoints").glob("step_*[0-9]")
    return max((int(path.name[5:]) for path in steps), default=0)


def wait_for_checkpoint(run: RunDir, after: int = 0) -> int:
    """Step of a checkpoint newer than `after`, once there is one."""
    wait_for(lambda: newest_step(run) > after, PATIENCE_S, f"a checkpoint after step {after}")
    return newest_step(run)


def metrics(run: RunDir) -> list[dict[str, Any]]:
    """Whole rows of metrics.jsonl."""
    lines = (run.stage("train") / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def logged(run: RunDir, stage: str) -> str:
    """Everything the tasks of a stage wrote, attempt after attempt."""
    return "\n".join(path.read_text() for path in sorted(run.logs(stage).glob("*.log")))


def resumed_steps(run: RunDir) -> list[int]:
    """Steps that attempts of the training say they resume from."""
    return [int(step) for step in re.findall(r"training resumes step=(\d+)", logged(run, "train"))]


def weights(run: RunDir) -> dict[str, str]:
    """SHA-256 of every file of the last checkpoint but the manifest, which tells the time."""
    [record] = run.ledger("train").records().values()
    files = (path for path in Path(record.path).rglob("*") if path.is_file())
    return {
        path.relative_to(record.path).as_posix(): digest_file(path).sha256
        for path in files
        if path.name != "MANIFEST.json"
    }
