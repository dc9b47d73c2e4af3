"""A first draft of a profile, from what Slurm says of the cluster; a person finishes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from hpc.cluster import slurm
from hpc.cluster.slurm import Limits, NodeKind, Partition
from hpc.errors import ConfigError
from hpc.publish import publish_text

Request = Literal["cpu_node", "gpu_node", "rank", "ranks", "array", "gpu", "gpu_briefly"]
"""What a stage asks for: all cores of a node; a node with its GPUs; one rank on one GPU; a rank for
each GPU of two nodes; array elements of one GPU each; one GPU; one GPU for a few hours."""

_LONGEST_MIN = 1200
_MEMORY_SHARE = 0.9
"""Of a node's memory; what Slurm knows as RealMemory is not all free for jobs."""


def write_profile(target: Path | None, stages: Mapping[str, Request]) -> Path:
    """Draft the profile of this cluster and return the file written.

    Args:
        stages: what each stage asks for; the others take the profile's default.
        target: file to write; None for `slurm/profiles/<cluster>.yaml` below this folder.

    Raises:
        ConfigError: the file is there already, or Slurm knows no partition that is up.
        SlurmUnavailableError: Slurm does not answer.
    """
    name = slurm.cluster_name() or "cluster"
    path = target or Path("slurm") / "profiles" / f"{name}.yaml"
    if path.exists():
        raise ConfigError(f"{path} is there already; name another with --write-profile FILE")
    text = draft_profile(name, slurm.limits(), slurm.partitions(), slurm.accounts(), stages)
    publish_text(path, text)
    return path


def draft_profile(
    cluster: str,
    limits: Limits,
    partitions: Sequence[Partition],
    accounts: Sequence[str],
    stages: Mapping[str, Request],
) -> str:
    """YAML of a profile that Slurm would take, with what was chosen between in comments.

    Raises:
        ConfigError: no partition is up.
    """
    usable = [part for part in partitions if part.up and part.kinds]
    if not usable:
        raise ConfigError("Slurm shows no partition that is up; ask the site, or write by hand")
    cpu = max(usable, key=lambda p: (p.gpus_per_node == 0, _steady(p), p.default, _nodes(p)))
    gpu = max(usable, key=lambda p: (p.gpus_per_node > 0, _steady(p), _gpus(p), p is cpu))
    lines = [
        f"# Drafted from what cluster {_plain(cluster)} says of itself "
        f"(Slurm {_plain(limits.version) or '?'}).",
        "# Look at account, partitions, time limits and modules before you use it; then:",
        "#   sarhpc doctor --profile THIS_FILE",
        *[f"# {line}" for line in map(_partition_line, usable)],
        "executor: slurm",
        f"cluster: {json.dumps(cluster)}",
        f"partition: {json.dumps(cpu.name)}",
    ]
    has_gpus = gpu.gpus_per_node > 0
    if has_gpus and gpu is not cpu:
        lines.append(f"gpu_partition: {json.dumps(gpu.name)}")
    lines += _account_lines(limits, accounts)
    if has_gpus:
        lines.append("gpu_syntax: gres")
        kind = _best(gpu)
        lines += [f"gpu_type: {json.dumps(kind.gpu_type)}"] if kind.gpu_type else []
    lines += [
        "requeue: scontrol  # `chain` if nodes have no scontrol, `none` if the site forbids both",
        "grace_s: 300",
        f"max_array: {limits.max_array_size}",
        *([f"max_jobs: {limits.max_jobs}"] if limits.max_jobs else []),
        'env: {HF_HUB_OFFLINE: "1", TRANSFORMERS_OFFLINE: "1"}',
    ]
    requests = _requests(cpu, gpu if has_gpus else None)
    return "\n".join(lines + _default_lines(cpu) + _stage_lines(requests, stages)) + "\n"


def _account_lines(limits: Limits, accounts: Sequence[str]) -> list[str]:
    if not accounts or not (limits.enforces_accounts or len(accounts) > 1):
        return []
    others = f"  # or {_plain(', '.join(accounts[1:]))}" if len(accounts) > 1 else ""
    return [f"account: {json.dumps(accounts[0])}{others}"]


def _default_lines(cpu: Partition) -> list[str]:
    node = _best(cpu)
    cores = min(node.cpus, 8)
    one = f"{{cpus_per_task: {cores}, mem_gb: {_memory_gb(node, cores)}"
    return [f"resources: {one}, time_min: {_minutes(cpu, 240)}}}"]


def _stage_lines(requests: Mapping[Request, str], stages: Mapping[str, Request]) -> list[str]:
    """A line for each stage whose request this cluster can meet, similar ones together."""
    lines = [
        f"  {stage}: {{{text}}}"
        for request, text in requests.items()
        for stage, requested in stages.items()
        if requested == request
    ]
    return ["stages:", *lines] if lines else []


def _requests(cpu: Partition, gpu: Partition | None) -> dict[Request, str]:
    """Each request in the numbers of these partitions; those for GPUs only where there are any."""
    node = _best(cpu)
    whole = f"cpus_per_task: {node.cpus}, mem_gb: {_memory_gb(node, node.cpus)}"
    requests: dict[Request, str] = {"cpu_node": f"{whole}, time_min: {_minutes(cpu)}"}
    if gpu is None:
        return requests
    node = _best(gpu)
    cores = max(node.cpus // node.gpus, 1)
    all_gpus = f"gpus_per_node: {node.gpus}, mem_gb: {_memory_gb(node, node.cpus)}"
    one_gpu = f"cpus_per_task: {cores}, gpus_per_node: 1, mem_gb: {_memory_gb(node, cores)}"
    time = f"time_min: {_minutes(gpu)}"
    ranks = f"nodes: {min(2, _nodes(gpu))}, tasks_per_node: {node.gpus}, cpus_per_task: {cores}"
    return requests | {
        "gpu_node": f"cpus_per_task: {node.cpus}, {all_gpus}, {time}",
        "rank": f"{one_gpu}, {time}",
        "ranks": f"{ranks}, {all_gpus}, {time}",
        "array": f"{one_gpu}, {time}, elements: {max(min(32, _gpus(gpu)), 1)}",
        "gpu": f"{one_gpu}, {time}",
        "gpu_briefly": f"{one_gpu}, time_min: {_minutes(gpu, 240)}",
    }


def _partition_line(part: Partition) -> str:
    kinds = "; ".join(
        f"{k.count} nodes of {k.cpus} cores, {k.mem_mb // 1024} GB"
        + (f", {k.gpus} GPUs {k.gpu_type}".rstrip() if k.gpus else "")
        for k in part.kinds
    )
    limit = f"{part.max_time_s // 60} min" if part.max_time_s else "no time limit"
    exposed = "" if _steady(part) else f", preempted ({part.preempt_mode}, {part.grace_s} s grace)"
    return _plain(f"{part.name}: {kinds}; {limit}{exposed}")


def _steady(part: Partition) -> bool:
    return part.preempt_mode in (None, "OFF")


def _nodes(part: Partition) -> int:
    return sum(kind.count for kind in part.kinds)


def _gpus(part: Partition) -> int:
    return sum(kind.count * kind.gpus for kind in part.kinds)


def _best(part: Partition) -> NodeKind:
    return max(part.kinds, key=lambda kind: (kind.gpus * kind.count, kind.count, kind.cpus))


def _memory_gb(node: NodeKind, cores: int) -> int:
    """Memory that goes with so many of the node's cores, whole GB."""
    return max(int(_MEMORY_SHARE * node.mem_mb / 1024 * cores / max(node.cpus, 1)), 1)


def _minutes(part: Partition, most: int = _LONGEST_MIN) -> int:
    return most if part.max_time_s is None else max(min(part.max_time_s // 60, most), 1)


def _plain(text: str) -> str:
    """The text on one line, so that it stays in its comment."""
    return " ".join(text.split())
