"""What Slurm says of the cluster, as findings of the doctor, and whether a profile fits it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

from hpc.cluster import slurm
from hpc.cluster.doctor import FAIL, OK, WARN, Finding, reduced
from hpc.cluster.profile import Profile, Resources
from hpc.cluster.slurm import Limits, Partition
from hpc.errors import HpcError

SHORT_GRACE_S = 60
"""Seconds of grace below which a training step and a save may not fit."""


def look_at_slurm() -> Iterator[Finding]:
    """Findings on the controller, its limits, its accounting and what it does to jobs."""
    if not slurm.is_available():
        yield Finding("slurm", WARN, "no sbatch and squeue here", "work with --executor local, "
                      "or go to a login node")  # fmt: skip
        return
    begin = time.monotonic()
    try:
        limits, parts = slurm.limits(), slurm.partitions()
    except HpcError as error:
        yield Finding("slurm", FAIL, str(error), "ask the site whether Slurm is up")
        return
    took = time.monotonic() - begin
    name = slurm.cluster_name() or "without a name"
    yield Finding("slurm", OK, f"{limits.version or '?'}, cluster {name}, answers in {took:.1f} s")
    yield _of_arrays(limits)
    yield _of_accounting(limits)
    yield from _of_preemption(limits, parts)
    yield Finding(
        "requeue", OK,
        f"a requeued job waits at least {limits.cred_expire_s} s; SIGKILL comes "
        f"{limits.kill_wait_s} s after SIGTERM",
    )  # fmt: skip


def _of_arrays(limits: Limits) -> Finding:
    most = limits.max_jobs or "any number of"
    says = f"arrays of {limits.max_array_size} elements, {most} jobs at a time"
    return Finding("limits", OK, says)


def _of_accounting(limits: Limits) -> Finding:
    if not limits.accounting:
        return Finding("accounting", WARN, "switched off",
                       "GPU-hours are then estimated from the attempts on disk")  # fmt: skip
    if not limits.accounts_gpus:
        return Finding("accounting", WARN, "GPUs are not accounted for",
                       "GPU-hours are then taken from the profile")  # fmt: skip
    return Finding("accounting", OK, "sacct answers, GPUs included")


def _of_preemption(limits: Limits, parts: list[Partition]) -> Iterator[Finding]:
    exposed = [p for p in parts if p.preempt_mode not in (None, "OFF")]
    known = any(part.preempt_mode is not None for part in parts)
    if known and not exposed and limits.preempt_mode == "OFF":
        yield Finding("preemption", OK, "no partition is preempted")
        return
    if limits.sends_user_signal:
        yield Finding("preemption", OK, "preempted jobs hear SIGUSR2 when their grace begins")
    else:
        yield Finding(
            "preemption", WARN, "preempted jobs hear SIGTERM only (no preempt_send_user_signal)",
            "they save on SIGTERM and leave the requeue to Slurm; nothing to do",
        )  # fmt: skip
    for part in exposed:
        short = part.grace_s < SHORT_GRACE_S
        yield Finding(
            f"partition {part.name}", WARN if short else OK,
            f"preempted by {part.preempt_mode} after {part.grace_s} s of grace",
            "checkpoint often there: what came after the last one may be lost" if short else "",
        )  # fmt: skip


def look_at_profile(profile: Profile) -> Iterator[Finding]:
    """Whether Slurm would take a job of each stage, as this profile asks for it."""
    if profile.executor != "slurm":
        yield Finding("profile", OK, f"{profile.name}: executor {profile.executor}, no Slurm asked")
        return
    for names, resources in _distinct(profile).items():
        try:
            slurm.test_request(request_words(profile, resources))
            yield Finding(f"profile {names}", OK, f"{profile.name}: Slurm takes such a job")
        except slurm.SlurmRefusedError as error:
            yield Finding(f"profile {names}", FAIL, str(error), f"correct {profile.file}")
        except slurm.SlurmUnavailableError as error:
            yield Finding(f"profile {names}", WARN, str(error))


def _distinct(profile: Profile) -> dict[str, Resources]:
    """Names of stages that ask for the same -> what they ask for."""
    asked: dict[Resources, list[str]] = {}
    for name, resources in {"other stages": profile.resources, **profile.stages}.items():
        asked.setdefault(resources, []).append(name)
    return {", ".join(names): resources for resources, names in asked.items()}


def request_words(profile: Profile, resources: Resources) -> list[str]:
    """The options of sbatch that decide whether a job can ever start."""
    told = profile.slurm_parameters(resources)
    options = {
        **{name: told.get(name) for name in ("partition", "account", "qos", "constraint")},
        **told["additional_parameters"],
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


def look_between_nodes(profile: Profile, resources: Resources, nodes: int) -> Finding:
    """An all-reduce between `nodes` nodes of the cluster, as a job that this call waits for."""
    told = profile.slurm_parameters(resources)
    backend = "nccl" if resources.gpus_per_node else "gloo"
    words = [f"--{name}={told[name]}" for name in ("partition", "account", "qos", "constraint")
             if name in told]  # fmt: skip
    words += [f"--{name}={text}" for name, text in told["additional_parameters"].items()
              if text is not True]  # fmt: skip
    words += [f"--nodes={nodes}", f"--ntasks-per-node={resources.gpus_per_node or 1}"]
    words += ["--time=10", "--job-name=sarhpc-doctor", "--kill-on-bad-exit=1"]
    python = profile.program_words(resources, sys.executable)
    probe = [*python, "-m", "hpc.cluster.reduce_probe", backend]
    try:
        text = slurm.run_step([*words, *probe], env={**profile.env, "PYTHONPATH": _code()})
    except HpcError as error:
        do = "look at NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME in the profile"
        return Finding(f"all-reduce {backend}", FAIL, str(error)[-300:], do)
    return reduced(text, f"on {nodes} nodes")


def _code() -> str:
    """Where this code is imported from, for a job that may start elsewhere."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
