"""Questions to Slurm, the doctor and the list of bad nodes on a real cluster.

The same questions go to fake commands in tests/unit/cluster/test_slurm.py.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest
from chain_runs import sarhpc, wait_for, write_profile
from line_runs import make_tiny_model, tiny_run
from mini_slurm import MiniSlurm

from hpc.cluster import slurm
from hpc.cluster.bad_nodes import BadNodeList, requeue_elsewhere
from hpc.cluster.draft import draft_profile
from hpc.cluster.profile import load_profile
from hpc.cluster.site import check_profile, check_slurm
from sarhpc.stages.registry import profile_requests

ODD = "a|b; $(touch owned) 'x' \"y\"\nnext"
SLEEP = ("-o", "/dev/null", "--wrap=sleep 300")


def runs_again(job: str) -> bool:
    """Whether the job is at its second start; Slurm counts that from the requeue on."""
    return [(q.state, q.restarts) for q in slurm.queue([job])] == [("RUNNING", 1)]


@pytest.fixture(autouse=True)
def _user(cluster: MiniSlurm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This process is a user of the cluster."""
    monkeypatch.setenv("SLURM_CONF", cluster.env["SLURM_CONF"])
    monkeypatch.setenv("SARHPC_STATE", str(tmp_path / "state"))


def test_jobs_are_told_as_they_are(cluster: MiniSlurm) -> None:
    mark = f"beef{time.time_ns()}"
    comment = f"sarhpc:{ODD}:tile:{mark}"
    running = cluster.submit("-J", ODD, f"--comment={comment}", "-N2", "-t10", *SLEEP)
    array = cluster.submit("--array=0-44%1", "--begin=now+1hour", *SLEEP)
    cluster.wait_state(running, "RUNNING")
    # Why a job waits is known once the scheduler has looked at it.
    wait_for(
        lambda: slurm.queue([array])[0].reason != "None", 90, "the scheduler looks at the array"
    )
    found = {job.job_id: job for job in slurm.queue([running, array, "999999"])}
    assert set(found) == {running, array}
    job, rest = found[running], found[array]
    assert (job.name, job.comment) == (ODD, comment)
    assert (job.state, job.nodes, job.restarts) == ("RUNNING", "n[1-2]", 0)
    assert job.left_s is not None
    assert 0 < job.left_s <= 600
    assert slurm.time_left_s(running) == pytest.approx(job.left_s, abs=5)
    assert (rest.state, rest.reason) == ("PENDING", "BeginTime")
    assert len(slurm.queue([array], elements=True)) == 45
    assert [job.id for job in slurm.find_by_comment(mark)] == [running]
    slurm.cancel([job.id, rest.id])
    wait_for(lambda: not slurm.queue([running, array]), 30, "cancelled, whatever its id looks like")
    assert slurm.queue([running]) == []
    assert slurm.queue(["999999"]) == []


def test_the_cluster_is_told_as_it_is(cluster: MiniSlurm) -> None:
    limits = slurm.limits()
    assert limits.version.startswith("2")
    assert limits.max_array_size > 5000
    assert limits.sends_user_signal
    assert (limits.accounting, limits.accounts_gpus, limits.stores_comments) == (True,) * 3
    parts = {part.name: part for part in slurm.partitions()}
    assert parts["low"].preempt_mode == "REQUEUE"
    assert parts["low"].grace_s > 0
    assert parts["main"].gpus_per_node == 2
    assert {node.name: node.usable for node in slurm.nodes()} == dict.fromkeys(cluster.nodes, True)
    cluster.down_node("n2", "bad | disk")
    (node,) = slurm.nodes(["n2", "nosuch"])
    assert (node.usable, node.reason) == (False, "bad | disk")


def test_every_attempt_is_accounted_for(cluster: MiniSlurm) -> None:
    begin = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(time.time() - 60))
    job = cluster.submit("-J", "two\nlines", "--gpus-per-node=2", *SLEEP)
    cluster.wait_state(job, "RUNNING")
    time.sleep(1.1)
    slurm.requeue(job)
    slurm.requeue(job)
    wait_for(lambda: runs_again(job), 60, "it runs again")
    slurm.cancel([job])

    def states() -> list[str]:
        return [attempt.state for attempt in slurm.accounting([job], begin)]

    wait_for(lambda: states() == ["REQUEUED", "CANCELLED"], 30, "both attempts")
    first = slurm.accounting([job], begin)[0]
    assert (first.name, first.gpus, first.nodes) == ("two lines", 2, "n1")
    assert first.elapsed_s >= 1


def test_the_doctors_draft_is_a_profile_that_slurm_takes(
    cluster: MiniSlurm, tmp_path: Path
) -> None:
    file = tmp_path / "drafted.yaml"
    name = slurm.cluster_name() or ""
    known = (slurm.limits(), slurm.partitions(), slurm.accounts())
    file.write_text(draft_profile(name, *known, profile_requests()))
    profile = load_profile(file)
    assert profile.partition == "main"
    assert profile.resources_of("train").gpus_per_node == 2
    found = [*check_slurm(), *check_profile(profile)]
    assert [finding for finding in found if finding.state == "fail"] == []
    file.write_text(file.read_text().replace('partition: "main"', "partition: nosuch"))
    refused = list(check_profile(load_profile(file)))
    assert {finding.state for finding in refused} == {"fail"}
    assert "partition" in refused[0].message


@pytest.mark.slow
def test_a_requeue_outlasts_a_controller_that_is_away_for_20_seconds(cluster: MiniSlurm) -> None:
    job = cluster.submit(*SLEEP)
    cluster.wait_state(job, "RUNNING")
    # Killed hard it would forget what it had not yet saved, the start of this job perhaps.
    cluster.stop_controller()
    back = threading.Timer(20, cluster.start_controller)
    back.start()
    try:
        slurm.requeue(job)
    finally:
        back.join()
    wait_for(lambda: runs_again(job), 90, "it runs again, once requeued")
    assert [queued.restarts for queued in slurm.queue([job])] == [1]


def test_a_requeued_job_starts_away_from_bad_nodes(cluster: MiniSlurm) -> None:
    job = cluster.submit(*SLEEP)
    cluster.wait_state(job, "RUNNING")
    (where,) = [queued.nodes for queued in slurm.queue([job])]
    listed = BadNodeList(slurm.cluster_name() or "")
    listed.mark(where, "smells")
    listed.mark("gone-long-ago", "Slurm knows it no more")
    requeue_elsewhere(job)
    wait_for(lambda: runs_again(job), 60, "it runs again")
    assert [queued.nodes != where for queued in slurm.queue([job])] == [True]


@pytest.mark.slow
def test_a_stage_leaves_a_node_whose_gpus_are_gone_and_ends_well_elsewhere(
    cluster: MiniSlurm, tmp_path: Path
) -> None:
    driver = tmp_path / "driver"
    driver.mkdir()
    (driver / "nvidia-smi").write_text(
        f"#!{sys.executable} -SE\nimport os, sys\n"
        "if os.environ.get('SLURMD_NODENAME') != 'n1' and 'remapped' not in sys.argv[1]:\n"
        "    print('0, Fake, 1000, 0, 0, 40\\n1, Fake, 1000, 0, 0, 40')\n"
    )
    (driver / "nvidia-smi").chmod(0o755)
    elements = "  simulate: {elements: 2, gpus_per_node: 1, mem_gb: 1, time_min: 20}\n"
    profile = write_profile(tmp_path, elements)
    run = tiny_run(tmp_path / "run", make_tiny_model(tmp_path / "model"))
    path = {"PATH": f"{driver}:{cluster.env['PATH']}"}
    state = {"SARHPC_STATE": str(tmp_path / "state")}
    done = sarhpc(cluster, "simulate", run.root, "--profile", profile, env=path | state)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: run.ledger("simulate").sealed, 240, "sealed on another node")
    (bad,) = BadNodeList(slurm.cluster_name() or "").current()
    assert bad.node == "n1"
    assert "0 GPUs are visible, 1 were requested" in bad.reason
    hosts = {record.host for record in run.ledger("simulate").records().values()}
    assert "n1" not in hosts
    listed = sarhpc(cluster, "nodes", env=state)
    assert "n1" in listed.stdout
    # What is submitted from now on stays away from it in the first place.
    printed = sarhpc(cluster, "tile", run.root, "--profile", profile, "--print-sbatch", env=state)
    assert "#SBATCH --exclude=n1" in printed.stdout, printed.stderr
