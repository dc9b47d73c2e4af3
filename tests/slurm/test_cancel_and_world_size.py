"""What a user cancels stays away until asked for again, then with more ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mini_slurm import MiniSlurm
from training_runs import (
    PATIENCE_S,
    STEPS,
    copy_of,
    logged,
    metrics,
    newest_step,
    profile_of,
    submit,
    wait_for_checkpoint,
)

from hpc.store.attempts import read_attempts
from hpc.store.rundir import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def manifest(run: RunDir, step: int) -> Any:
    folder = run.stage("train") / "checkpoints" / f"step_{step:08d}"
    return json.loads((folder / "MANIFEST.json").read_text())


def cancel_midway(cluster: MiniSlurm, run: RunDir, folder: Path) -> int:
    """Train on two ranks up to a checkpoint, then `scancel`; the step it saved."""
    job = submit(cluster, run, "train", profile_of(folder, 1)).job_id
    wait_for_checkpoint(run)
    cluster.run("scancel", job)
    cluster.wait_state(job, "CANCELLED")
    [row] = cluster.wait_records(job, ["CANCELLED"])
    assert row["State"].startswith("CANCELLED by")
    assert cluster.job(job)["Restarts"] == "0"
    end = read_attempts(run.stage("train"))[-1]
    assert (end["stop"], end["exit"]) == ("TERMINATE", 0)
    saved = newest_step(run)
    assert end["to"] == saved == metrics(run)[-1]["step"], "it saved all it had done"
    assert manifest(run, saved)["world_size"] == 2
    return saved


def test_cancelled_it_saves_and_stays_away_and_goes_on_with_more_ranks(
    tmp_path: Path, cluster: MiniSlurm, ready_training: RunDir, calm_training: RunDir
) -> None:
    run = copy_of(ready_training, tmp_path / "run")
    saved = cancel_midway(cluster, run, tmp_path)
    job = submit(cluster, run, "train", profile_of(tmp_path, 2)).job_id
    cluster.wait_state(job, timeout_s=PATIENCE_S)
    cluster.wait_records(job, ["COMPLETED"])
    assert 0 < saved < STEPS
    said = logged(run, "train")
    assert "checkpoint of 2 ranks resharded for 4" in said
    assert f"training resumes step={saved} of={STEPS}" in said
    rows, calm = metrics(run), metrics(calm_training)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    # The samples and their noise are those of the run on two ranks alone: so are the losses.
    for name in ("loss", "lr_unet", "epoch", "ema_decay"):
        assert [row[name] for row in rows] == pytest.approx([row[name] for row in calm], rel=1e-3)
    last = [manifest(each, STEPS)["state"] for each in (run, calm_training)]
    assert last[0]["cursor"] == last[1]["cursor"]
