"""Which process an identity means, and what can be known of it from here."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from hpc.store import identity as identity_module
from hpc.store.identity import (
    Identity,
    is_alive,
    own_identity,
    parse_identity,
    process_identity,
)

SLURM = {"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "3", "SLURM_CLUSTER_NAME": "alps"}
BOOT = Path("/proc/sys/kernel/random/boot_id")


@pytest.fixture(autouse=True)
def _outside_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SLURM:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def child() -> Iterator[int]:
    """Number of a process that waits to be killed, and is a zombie then."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def kill(pid: int) -> None:
    """It is dead, and nobody has waited for it."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def of_version_0_1(found: Identity) -> Identity:
    """What leases of version 0.1 had of it."""
    return Identity(found.host, found.pid, found.born)


def test_a_process_outside_slurm_says_what_the_kernel_knows_of_it() -> None:
    found = own_identity()
    assert (found.host, found.pid) == (socket.gethostname(), os.getpid())
    assert found.born == psutil.Process().create_time()
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    assert found.start_ticks == int(fields[19])
    assert found.boot_id == BOOT.read_text().strip()
    assert found.pid_namespace == os.stat("/proc/self/ns/pid").st_ino
    assert (found.job, found.restart, found.cluster) == (None, None, None)
    assert str(found) == f"process {os.getpid()} on {socket.gethostname()}"
    assert {"job", "restart", "cluster"}.isdisjoint(json.loads(found.to_json()))


def test_a_process_of_a_job_names_it_its_restarts_and_its_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "alps")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    assert own_identity().cluster is None, "variables of a login node are none of a job"
    assert own_identity().restart is None
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    found = own_identity()
    assert (found.job, found.restart, found.cluster) == ("12", 3, "alps")
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    assert own_identity().restart == 0


def test_the_identity_of_another_process_has_no_token_and_no_job(
    child: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    found = process_identity(child)
    assert found is not None
    assert (found.pid, found.token, found.job) == (child, None, None)
    assert found.start_ticks is not None
    kill(child)
    assert process_identity(child) is None, "a zombie is dead"


@pytest.mark.parametrize("older", [False, True])
def test_it_lives_until_it_is_a_zombie(child: int, older: bool) -> None:
    found = process_identity(child)
    assert found is not None
    holder = of_version_0_1(found) if older else found
    assert is_alive(holder) is True
    kill(child)
    assert is_alive(holder) is False


@pytest.mark.parametrize("older", [False, True])
def test_a_process_that_is_gone_is_dead(older: bool) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    found = process_identity(pid) or replace(own_identity(), pid=pid)
    os.waitpid(pid, 0)
    assert is_alive(of_version_0_1(found) if older else found) is False


def test_a_number_that_was_given_again_is_not_the_holder() -> None:
    found = own_identity()
    assert found.start_ticks is not None
    assert found.born is not None
    assert is_alive(replace(found, start_ticks=found.start_ticks - 1)) is False
    assert is_alive(replace(found, start_ticks=None)) is False
    older = of_version_0_1(found)
    for shift_s, alive in ((0.9, True), (-0.9, True), (1.0, False), (-1.0, False)):
        assert is_alive(replace(older, born=found.born + shift_s)) is alive


def test_of_another_kernel_namespace_or_host_nothing_is_known() -> None:
    found = own_identity()
    assert is_alive(replace(found, boot_id="another")) is None
    assert is_alive(replace(found, pid_namespace=1)) is None
    older = of_version_0_1(found)
    assert is_alive(replace(older, host="node-7")) is None
    assert is_alive(replace(older, born=None)) is None


@pytest.mark.parametrize(
    ("job", "restart", "cluster", "alive"),
    [
        ("12", 2, "alps", False),
        ("12", None, "alps", False),
        ("12", 2, None, False),
        ("12", 3, "alps", None),
        ("12", 4, "alps", None),
        ("12", 2, "todi", None),
        ("13", 2, "alps", None),
        (None, None, None, None),
    ],
)
def test_only_an_earlier_start_of_this_job_is_known_to_be_gone(
    monkeypatch: pytest.MonkeyPatch,
    job: str | None,
    restart: int | None,
    cluster: str | None,
    alive: bool | None,
) -> None:
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    lost = Identity("node-7", 1, boot_id="another", job=job, restart=restart, cluster=cluster)
    assert is_alive(lost) is alive
    monkeypatch.delenv("SLURM_CLUSTER_NAME")
    there = replace(lost, cluster="todi")
    assert is_alive(there) is (None if (job, restart) not in (("12", 2), ("12", None)) else False)


def test_before_its_first_restart_a_job_has_no_earlier_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    for restart in (None, 0):
        first = Identity("node-7", 1, boot_id="another", job="12", restart=restart)
        assert is_alive(first) is None
        with monkeypatch.context() as its:
            its.setenv("SLURM_RESTART_COUNT", "1")
            assert is_alive(first) is False


def test_without_proc_a_process_is_told_by_its_start_as_psutil_gives_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(path: str) -> Path:
        raise FileNotFoundError(path)

    monkeypatch.setattr(identity_module, "Path", absent)
    found = own_identity()
    assert (found.boot_id, found.pid_namespace, found.start_ticks) == (None, None, None)
    assert found.born is not None
    assert is_alive(found) is True
    assert is_alive(replace(found, born=found.born - 5)) is False


def test_outside_a_job_no_start_is_an_earlier_one() -> None:
    assert is_alive(Identity("node-7", 1, boot_id="another", job="", restart=-1)) is None
    assert is_alive(Identity("node-7", 1, boot_id="another", restart=-1)) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"host": 3, "pid": "x"}'])
def test_what_is_no_identity_is_none(text: str) -> None:
    assert parse_identity(text) is None
