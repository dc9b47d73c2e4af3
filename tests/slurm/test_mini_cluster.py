"""The cluster that the other tests stand on does what a site's Slurm does."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mini_slurm
import psutil
import pytest
from mini_slurm import ClusterError, MiniSlurm, wait_until
from slowness import slowness


def test_a_step_runs_on_four_nodes_each_with_its_own_name(cluster: MiniSlurm) -> None:
    say = "echo $SLURMD_NODENAME $(hostname) $(getent hosts $(hostname) | cut -d' ' -f1)"
    said = cluster.run("srun", "-N4", "bash", "-c", say).stdout
    names, hosts, addresses = zip(*map(str.split, said.splitlines()), strict=True)
    assert sorted(names) == cluster.nodes
    if cluster.spec.isolate == "uts":
        assert hosts == names
        assert len(set(addresses)) == 4


def test_jobs_on_one_node_get_different_gpus(cluster: MiniSlurm, tmp_path: Path) -> None:
    word = f"echo $CUDA_VISIBLE_DEVICES > {tmp_path}/$SLURM_JOB_ID; sleep 2"
    options = ("--gpus-per-node=1", "-w", "n1", "-o", "/dev/null", f"--wrap={word}")
    jobs = [cluster.submit(*options) for _ in range(2)]
    for job in jobs:
        cluster.wait_state(job)
    assert sorted((tmp_path / job).read_text().strip() for job in jobs) == ["0", "1"]
    with pytest.raises(ClusterError, match="not available"):
        cluster.submit("--gpus-per-node=3", "--wrap=true")


def test_accounting_keeps_state_exit_code_and_gpus(cluster: MiniSlurm) -> None:
    job = cluster.submit("--gpus-per-node=2", "--comment=a b|c", "-o", "/dev/null", "--wrap=exit 5")
    cluster.wait_state(job, "FAILED")
    (row,) = cluster.wait_records(job, ["FAILED"])
    assert row["ExitCode"] == "5:0"
    assert "gres/gpu=2" in row["AllocTRES"]
    assert row["Comment"] == "a b|c"


def test_a_higher_partition_preempts_and_the_victim_comes_back(cluster: MiniSlurm) -> None:
    victim = cluster.submit("-p", "scavenge", "-N4", "--exclusive", "-o", "/dev/null",
                            "--wrap=[ $SLURM_RESTART_COUNT ] || sleep 600")  # fmt: skip
    cluster.wait_state(victim, "RUNNING")
    taker = cluster.submit("-p", "high", "-N4", "--exclusive", "-o", "/dev/null", "--wrap=true")
    cluster.wait_state(taker)
    cluster.wait_state(victim)
    assert cluster.job(victim)["Restarts"] == "1"
    cluster.wait_records(victim, ["PREEMPTED", "COMPLETED"])


def test_preemption_with_grace_warns_by_usr2_first(cluster: MiniSlurm, tmp_path: Path) -> None:
    """A job on partition low that leaves on the signal makes room at once."""
    script = tmp_path / "victim.sh"
    note = tmp_path / "signalled"
    script.write_text(
        "#!/bin/bash\n"
        "[ $SLURM_RESTART_COUNT ] && exit 0\n"
        f"srun bash -c 'trap \"date +%s.%N > {note}; exit 0\" USR2; while :; do sleep 0.1; done'\n"
        "scontrol requeue $SLURM_JOB_ID; sleep 60\n"
    )
    victim = cluster.submit(
        "-p", "low", "-N4", "--exclusive", "--signal=USR2@10", "-o", "/dev/null", str(script)
    )
    cluster.wait_state(victim, "RUNNING")
    time.sleep(1)  # the trap is set
    began = time.time()
    taker = cluster.submit("-p", "high", "-N4", "--exclusive", "-o", "/dev/null", "--wrap=true")
    cluster.wait_state(taker)
    slow = slowness()
    assert float(note.read_text()) - began < 10 * slow
    assert time.time() - began < (cluster.spec.grace_s + 20) * slow
    cluster.wait_state(victim)


def test_a_downed_node_requeues_its_job_elsewhere(cluster: MiniSlurm) -> None:
    wrap = "--wrap=[ $SLURM_RESTART_COUNT ] || sleep 600"
    job = cluster.submit("-w", "n2,n3", "-N2", "-o", "/dev/null", wrap)
    cluster.wait_state(job, "RUNNING")
    cluster.run("scontrol", "update", f"JobId={job}", "ReqNodeList=", check=False)
    cluster.down_node("n2")
    cluster.wait_state(job, "PENDING")
    cluster.resume_node("n2")
    cluster.wait_state(job)
    assert [row["State"] for row in cluster.wait_records(job, ["NODE_FAIL", "COMPLETED"])]


@pytest.mark.slow
def test_a_crashed_node_takes_its_tasks_with_it_and_is_noticed(cluster: MiniSlurm) -> None:
    job = cluster.submit("-w", "n4", "-o", "/dev/null", "--wrap=srun sleep 600 & sleep 600")
    cluster.wait_state(job, "RUNNING")
    time.sleep(1)
    assert cluster.job_processes("n4")
    cluster.crash_node("n4")
    assert cluster.job_processes("n4") == []
    assert cluster.daemon("slurmd.n4") is None
    cluster.wait_state(job, "PENDING", 90)
    cluster.wait_records(job, ["NODE_FAIL", "PENDING"])
    cluster.restart_node("n4")


@pytest.mark.slow
def test_a_shortened_job_times_out(cluster: MiniSlurm) -> None:
    job = cluster.submit("-t", "60", "-o", "/dev/null", "--wrap=sleep 600")
    cluster.wait_state(job, "RUNNING")
    cluster.shorten(job)
    assert cluster.wait_state(job, ("COMPLETED", "TIMEOUT"), 90) == "TIMEOUT"


@pytest.mark.slow  # squeue itself tries for ten seconds
def test_the_controller_goes_and_comes_back_with_its_jobs(cluster: MiniSlurm) -> None:
    job = cluster.submit("-o", "/dev/null", "--wrap=sleep 600")
    cluster.wait_state(job, "RUNNING")
    cluster.stop_controller()
    refused = cluster.run("squeue", check=False)
    assert refused.returncode != 0
    assert "Unable to contact slurm controller" in refused.stderr
    cluster.start_controller()
    assert cluster.states(job) == ["RUNNING"]


def test_healing_clears_jobs_nodes_and_controller(cluster: MiniSlurm) -> None:
    cluster.submit("-a", "0-3", "-o", "/dev/null", "--wrap=sleep 600")
    cluster.down_node("n1")
    cluster.crash_node("n3")
    cluster.stop_controller()
    cluster.heal()
    assert cluster.squeue() == []
    assert set(cluster.node_states().values()) == {"idle"}


def test_clusters_side_by_side_do_not_meet_and_leave_nothing(cluster: MiniSlurm) -> None:
    root = Path(tempfile.mkdtemp(prefix="mini-slurm-"))
    spec = mini_slurm.ClusterSpec(nodes=1, gpus=0, accounting=False, name="other")
    try:
        other = MiniSlurm(root, spec).start()
        assert not set(other.spec.ports) & set(cluster.spec.ports)
        # A daemon that its job leaves behind, which process tracking without cgroups loses.
        job = other.submit("-o", "/dev/null", "--wrap=setsid nohup sleep 600 & sleep 600")
        other.wait_state(job, "RUNNING")
        wait_until(lambda: "sleep" in [process.name() for process in other.job_processes()], 10)
        assert cluster.squeue() == []
        guard = [sys.executable, mini_slurm.__file__, "guard", str(root)]
        subprocess.run(guard, check=True, capture_output=True, input=b"")
        assert _processes_naming(root) == []
    finally:
        MiniSlurm(root).stop()
        shutil.rmtree(root, ignore_errors=True)


def _processes_naming(root: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline", "environ", "status"]):
        words = [*(process.info["cmdline"] or []), *(process.info["environ"] or {}).values()]
        dead = process.info["status"] == psutil.STATUS_ZOMBIE
        if not dead and any(str(root) in word for word in words):
            found.append(" ".join(words[:5]))
    return found
