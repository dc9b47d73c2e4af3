"""What ends a job outside its work, on a real Slurm: it comes back, or says why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chain_runs import NEVER, sarhpc, wait_for, write_profile
from line_runs import tiny_run
from mini_slurm import MiniSlurm
from training_runs import PATIENCE_S, logged

from hpc.store.attempts import KILLED, read_attempts
from hpc.store.rundir import RunDir
from hpc.store.submissions import read_submissions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def simulate(cluster: MiniSlurm, run: RunDir, profile: Path) -> str:
    """Job id of the stage `simulate`, submitted alone."""
    done = sarhpc(cluster, "simulate", run.root, "--profile", profile)
    assert done.returncode == 0, done.stderr
    return read_submissions(run)[-1].of("simulate")[0].job_id


def killed_at_first(folder: Path, fault: str) -> Path:
    """A profile whose jobs meet `fault` in their first start."""
    prolog = folder / "task-prolog.sh"
    prolog.write_text(
        '#!/bin/bash\n[ "$SLURM_RESTART_COUNT" = "" ] && '
        f'echo "export SARHPC_FAULT={fault}:1:kill"\ntrue\n'
    )
    prolog.chmod(0o755)
    profile = write_profile(folder)
    text = profile.read_text().replace("env: {", f"env: {{SLURM_TASK_PROLOG: {prolog}, ")
    profile.write_text(text)
    return profile


def test_a_job_killed_while_it_seals_and_one_without_a_readable_plan(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    sealing, planless = (tiny_run(tmp_path / name, tmp_path) for name in ("sealing", "planless"))
    planless.plan_file("simulate").mkdir(parents=True)
    hopeless = simulate(cluster, planless, write_profile(tmp_path))
    killed = simulate(cluster, sealing, killed_at_first(tmp_path, "stage.before_seal"))

    wait_for(lambda: sealing.ledger("simulate").sealed, PATIENCE_S, "the killed job comes back")
    cluster.wait_state(killed, "COMPLETED", timeout_s=PATIENCE_S)
    ends = [row["exit"] for row in read_attempts(sealing.stage("simulate")) if "to" in row]
    assert ends == [KILLED, 0]
    assert "0 of 4 shards made now" in logged(sealing, "simulate")

    cluster.wait_state(hopeless, "FAILED", timeout_s=PATIENCE_S)
    cluster.wait_records(hopeless, ["REQUEUED", "REQUEUED", "FAILED"])
    [found] = [
        stage
        for stage in json.loads(sarhpc(cluster, "status", planless.root, "--json").stdout)["stages"]
        if stage["name"] == "simulate"
    ]
    assert found["state"] == "FAILED"
    assert "3 attempts in a row made no progress" in found["says"]
    assert "IsADirectoryError" in found["says"]
    output = sarhpc(cluster, "logs", planless.root, "--failed").stdout
    assert "IsADirectoryError" in output


def test_shards_of_a_cancelled_element_are_made_by_the_other_one(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    run = tiny_run(tmp_path / "run", tmp_path)
    profile = write_profile(tmp_path, "  simulate: {elements: 2}\n", NEVER)
    array = simulate(cluster, run, profile)
    cluster.run("scancel", f"{array}_1")
    cluster.run("scontrol", "update", f"JobId={array}", "StartTime=now")
    wait_for(lambda: run.ledger("simulate").sealed, PATIENCE_S, "the last element seals")
    assert "2 of its 2 shards now and 2 lost ones, sealed" in logged(run, "simulate")
    assert {row["element"] for row in read_attempts(run.stage("simulate"))} == {0}
