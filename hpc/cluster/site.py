"""Findings of the doctor on the cluster, from Slurm, and on a profile for it."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Iterator

from hpc.cluster import slurm
from hpc.cluster.doctor import FAIL, OK, WARN, Finding, all_reduce_finding
from hpc.cluster.profile import Profile, Resources
from hpc.cluster.reduce_probe import KEY
from hpc.cluster.slurm import Limits, Partition
from hpc.errors import HpcError

SHORT_GRACE_S = 60
"""Seconds of grace below which a training step and a save may not fit."""


def check_slurm() -> Iterator[Finding]:
    """Findings on the controller, its limits, its accounting and its preemption."""
    if not slurm.is_available():
        yield Finding("slurm", WARN, "no sbatch and squeue here", "work with --executor local, "
                      "or go to a login node")  # fmt: skip
        return
    begin = time.monotonic()
    try:
        limits, parts = slurm.limits(), slurm.partitions()
    except HpcError as error:
        yield Finding("slurm", FAIL, str(error), "ask the site support whether Slurm is up")
        return
    took = time.monotonic() - begin
    name = slurm.cluster_name() or "without a name"
    yield Finding("slurm", OK, f"{limits.version or '?'}, cluster {name}, answers in {took:.1f} s")
    yield _array_finding(limits)
    yield _accounting_finding(limits)
    yield from _preemption_findings(limits, parts)
    yield Finding(
        "requeue", OK,
        f"a requeued job waits at least {limits.cred_expire_s} s; SIGKILL comes "
        f"{limits.kill_wait_s} s after SIGTERM",
    )  # fmt: skip


def _array_finding(limits: Limits) -> Finding:
    most = limits.max_jobs or "any number of"
    message = f"arrays of {limits.max_array_size} elements, {most} jobs at a time"
    return Finding("limits", OK, message)


def _accounting_finding(limits: Limits) -> Finding:
    if not limits.accounting:
        return Finding("accounting", WARN, "switched off",
                       "GPU-hours are then estimated from the attempts on disk")  # fmt: skip
    if not limits.accounts_gpus:
        return Finding("accounting", WARN, "GPUs are not accounted for",
                       "GPU-hours are then taken from the profile")  # fmt: skip
    return Finding("accounting", OK, "sacct answers, GPUs included")


def _preemption_findings(limits: Limits, parts: list[Partition]) -> Iterator[Finding]:
    exposed = [p for p in parts if p.preempt_mode not in (None, "OFF")]
    known = any(part.preempt_mode is not None for part in parts)
    if known and not exposed and limits.preempt_mode == "OFF":
        yield Finding("preemption", OK, "no partition is preempted")
        return
    if limits.sends_user_signal:
        yield Finding(
            "preemption", OK, "preempted jobs get SIGUSR2 at the start of their grace time"
        )
    else:
        yield Finding(
            "preemption", WARN, "preempted jobs get SIGTERM only (no preempt_send_user_signal)",
            "they save on SIGTERM and leave the requeue to Slurm; nothing to do",
        )  # fmt: skip
    for part in exposed:
        short = part.grace_s < SHORT_GRACE_S
        yield Finding(
            f"partition {part.name}", WARN if short else OK,
            f"preempted by {part.preempt_mode} after {part.grace_s} s of grace",
            "checkpoint often there: work since the last one may be lost" if short else "",
        )  # fmt: skip


def check_profile(profile: Profile) -> Iterator[Finding]:
    """Whether Slurm would accept the jobs of each stage with this profile."""
    if profile.executor != "slurm":
        yield Finding("profile", OK, f"{profile.name}: executor {profile.executor}, without Slurm")
        return
    for names, resources in _stages_by_request(profile).items():
        try:
            slurm.test_request(request_options(profile, resources))
            yield Finding(f"profile {names}", OK, f"{profile.name}: Slurm accepts such a job")
        except slurm.SlurmRefusedError as error:
            yield Finding(f"profile {names}", FAIL, str(error), f"correct {profile.file}")
        except slurm.SlurmUnavailableError as error:
            yield Finding(f"profile {names}", WARN, str(error))


def _stages_by_request(profile: Profile) -> dict[str, Resources]:
    """Names of stages with equal resources -> these resources."""
    requested: dict[Resources, list[str]] = {}
    for name, resources in {"other stages": profile.resources, **profile.stages}.items():
        requested.setdefault(resources, []).append(name)
    return {", ".join(names): resources for resources, names in requested.items()}


def request_options(profile: Profile, resources: Resources) -> list[str]:
    """The options of sbatch that decide whether a job can start."""
    parameters = profile.slurm_parameters(resources)
    options = {
        **{name: parameters.get(name) for name in ("partition", "account", "qos", "constraint")},
        **parameters["additional_parameters"],
        "nodes": resources.nodes,
        "ntasks-per-node": resources.tasks_per_node,
        "cpus-per-task": resources.cpus_per_task,
        "time": resources.time_min,
        "mem": f"{int(resources.mem_gb * 1024)}M" if profile.ask_memory else None,
    }
    return [
        f"--{name}" if text is True else f"--{name}={text}"
        for name, text in options.items()
        if text is not None
    ]


def check_between_nodes(profile: Profile, resources: Resources, nodes: int) -> Finding:
    """An all-reduce between `nodes` nodes of the cluster, run as a job; waits for it."""
    parameters = profile.slurm_parameters(resources)
    backend = "nccl" if resources.gpus_per_node else "gloo"
    named = [name for name in ("partition", "account", "qos", "constraint") if name in parameters]
    options = [f"--{name}={parameters[name]}" for name in named]
    options += [f"--{name}={text}" for name, text in parameters["additional_parameters"].items()
              if text is not True]  # fmt: skip
    options += [f"--nodes={nodes}", f"--ntasks-per-node={resources.gpus_per_node or 1}"]
    options += ["--time=10", "--job-name=sarhpc-doctor", "--kill-on-bad-exit=1"]
    python = profile.interpreter_command(resources, sys.executable)
    probe = [*python, "-m", "hpc.cluster.reduce_probe", backend]
    try:
        secret = {KEY: secrets.token_hex(32)}
        env = {**profile.env, "PYTHONPATH": _code(), **secret}
        text = slurm.run_step([*options, *probe], env=env)
    except HpcError as error:
        advice = "check NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME in the profile"
        return Finding(f"all-reduce {backend}", FAIL, str(error)[-300:], advice)
    return all_reduce_finding(text, f"on {nodes} nodes")


def _code() -> str:
    """PYTHONPATH by which a job that starts in another directory imports this code."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
