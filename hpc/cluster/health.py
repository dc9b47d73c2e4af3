"""Node preflight: is this node fit for the work, said within a minute of a job's start.

Looks at what has been seen to spoil jobs: lost or ailing GPUs, a full or read-only scratch, a clock
that is off, a shared file system that does not answer, fewer cores than were asked for. A verdict
of `bad` ends the job here, so that it goes on elsewhere; `doubtful` is only written down.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.cluster.bad_nodes import EXPIRY_H, BadNodeList
from hpc.errors import HpcError, IncompleteError, TransientError
from hpc.publish import publish_text

GOOD, DOUBTFUL, BAD = "good", "doubtful", "bad"

CLOCK_S = 5.0
"""Seconds between this clock and the file system's from which heartbeats mislead."""
SLOW_S = 20.0
"""Seconds to publish one small file from which a file system is doubtful."""
HANGS_S = 60.0
"""Seconds after which a check counts as hanging."""
SCRATCH_EXPIRY_H = 2.0
"""Hours to stay away from a node whose scratch is full: its other jobs end."""
_GPU_FIELDS = (
    "index", "name", "memory.total", "memory.used", "ecc.errors.uncorrected.volatile.total",
    "temperature.gpu",
)  # fmt: skip
_REMAPPED_FIELDS = ("index", "remapped_rows.failure", "remapped_rows.pending")
_HOT_C = 90

_log = logging.getLogger(__name__)


class BadNodeError(TransientError):
    """This node is not fit for the work; the same job may do well on another."""


class TooManyBadNodesError(IncompleteError):
    """Most nodes fail the preflight: the trouble is not theirs."""


@dataclass(frozen=True)
class Verdict:
    """What one check says of this node."""

    check: str
    verdict: str
    """`good`, `doubtful` or `bad`."""
    says: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Needs:
    """What the work asks of a node."""

    run: Path
    """A folder that every node shares and the work writes to."""
    scratch: Path | None = None
    """Node-local folder; None if the work does not use one."""
    scratch_bytes: int = 0
    scratch_inodes: int = 0
    cpus: int = 0
    """Cores this process should have; 0 to not look."""
    gpus: int = 0
    """GPUs this node should show; 0 to not look."""
    compute: bool = True
    """Whether each GPU has to multiply matrices, right and in time (about 10 s)."""


def preflight(needs: Needs) -> list[Verdict]:
    """Verdicts of all checks on this node; a check that hangs is `bad`, none raises."""
    checks: list[tuple[str, Callable[[], Verdict]]] = [
        ("files", lambda: check_shared_files(needs.run)),
        ("memory", check_shared_memory),
    ]
    if needs.scratch is not None:
        scratch = needs.scratch
        checks.append(
            ("scratch", lambda: check_scratch(scratch, needs.scratch_bytes, needs.scratch_inodes))
        )
    if needs.cpus:
        checks.append(("cores", lambda: check_cores(needs.cpus)))
    if needs.gpus:
        checks.append(("gpus", lambda: check_gpus(needs.gpus)))
        if needs.compute and shutil.which("nvidia-smi"):
            checks.append(("compute", lambda: check_compute(needs.gpus)))
    return [_judged(name, check) for name, check in checks]


def require_fit_node(needs: Needs, listed: BadNodeList | None = None) -> list[Verdict]:
    """The verdicts, logged one a line.

    Args:
        needs: what the work asks for.
        listed: where a bad node is put down, so that no other job is sent there.

    Raises:
        BadNodeError: a verdict is `bad`; says which, and how the node is forgiven.
        TooManyBadNodesError: so many nodes are bad that going elsewhere does not help.
    """
    verdicts = preflight(needs)
    node = node_name()
    for verdict in verdicts:
        level = logging.INFO if verdict.verdict == GOOD else logging.WARNING
        _log.log(
            level, "preflight node=%s check=%s verdict=%s seconds=%.1f: %s",
            node, verdict.check, verdict.verdict, verdict.seconds, verdict.says,
        )  # fmt: skip
    bad = [verdict for verdict in verdicts if verdict.verdict == BAD]
    if not bad:
        return verdicts
    reason = "; ".join(f"{verdict.check}: {verdict.says}" for verdict in bad)
    if listed is not None:
        passing = all(verdict.check == "scratch" for verdict in bad)
        _put_down(listed, node, reason, SCRATCH_EXPIRY_H if passing else EXPIRY_H)
    raise BadNodeError(
        f"node {node} is not fit: {reason}. `sarhpc nodes` lists it; "
        f"`sarhpc nodes --forgive {node}` lets jobs back."
    )


def _put_down(listed: BadNodeList, node: str, reason: str, hours: float) -> None:
    from hpc.cluster import slurm

    job = os.environ.get("SLURM_JOB_ID")
    listed.mark(node, reason, job=job, hours=hours)
    try:
        existing = {known.name for known in slurm.nodes()} if job else set()
    except HpcError as error:
        _log.warning("how many nodes are left is not known: %s", error)
        return
    if existing and listed.too_many(existing):
        raise TooManyBadNodesError(
            f"node {node} is not fit: {reason}. More than half of the cluster is marked so, "
            "which no requeue cures: look at `sarhpc nodes` and at what they have in common, "
            "then `sarhpc nodes --forgive NODE` and `sarhpc resume RUN`."
        )


def node_name() -> str:
    """Slurm's name of this node, or the host's short name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname().partition(".")[0]


def check_shared_files(folder: Path) -> Verdict:
    """Whether the shared file system takes a file, and agrees on the time."""
    mark = folder / f".preflight-{node_name()}-{os.getpid()}"
    begin, clock = time.monotonic(), time.time()
    try:
        publish_text(mark, "preflight\n")
        written = mark.stat().st_mtime
    finally:
        mark.unlink(missing_ok=True)
    took = time.monotonic() - begin
    skew = max(clock - written, written - clock - took)
    if skew > CLOCK_S:
        says = f"clock is {skew:.0f} s off that of {folder}: heartbeats and leases mislead"
        return Verdict("files", DOUBTFUL, says)
    if took > SLOW_S:
        return Verdict("files", DOUBTFUL, f"one small file in {folder} took {took:.0f} s")
    return Verdict("files", GOOD, f"{folder} takes a file in {took:.2f} s")


def check_shared_memory(folder: Path = Path("/dev/shm"), least_mb: int = 64) -> Verdict:  # noqa: S108
    """Whether there is shared memory for data loaders."""
    if not folder.is_dir():
        return Verdict("memory", DOUBTFUL, f"no {folder}: data loaders with workers fail")
    free_mb = shutil.disk_usage(folder).free // 2**20
    verdict = GOOD if free_mb >= least_mb else DOUBTFUL
    return Verdict("memory", verdict, f"{free_mb} MB free in {folder}")


def check_scratch(folder: Path, need_bytes: int, need_inodes: int) -> Verdict:
    """Whether node-local scratch is there, writable, and large enough in bytes and inodes."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return Verdict("scratch", BAD, f"{folder} is missing or not writable")
    usage = os.statvfs(folder)
    free, inodes = usage.f_bavail * usage.f_frsize, usage.f_favail
    # Some file systems count no inodes and say 0 of 0.
    short = free < need_bytes or (usage.f_files > 0 and inodes < need_inodes)
    says = f"{folder} has {free / 1e9:.1f} GB and {inodes} inodes free"
    if short:
        says += f", {need_bytes / 1e9:.1f} GB and {need_inodes} inodes are needed"
    return Verdict("scratch", BAD if short else GOOD, says)


def check_cores(asked: int) -> Verdict:
    """Whether this process may use the cores that were asked for."""
    have = len(os.sched_getaffinity(0))
    if have < asked:
        says = f"bound to {have} cores of {asked}: give srun --cpus-per-task itself"
        return Verdict("cores", DOUBTFUL, says)
    return Verdict("cores", GOOD, f"{have} cores")


def check_gpus(asked: int) -> Verdict:
    """Whether the driver shows the GPUs, without memory errors, cool and free."""
    if shutil.which("nvidia-smi") is None:
        return Verdict("gpus", DOUBTFUL, "no nvidia-smi here, so nobody has looked at the GPUs")
    try:
        found = _ask_driver(_GPU_FIELDS)
    except (OSError, subprocess.SubprocessError) as error:
        return Verdict("gpus", BAD, f"the GPU driver does not answer: {error}")
    if len(found) < asked:
        return Verdict("gpus", BAD, f"{len(found)} GPUs are visible, {asked} were asked for")
    bad = [f"GPU {g['index']} has {g[_GPU_FIELDS[4]]} uncorrected memory errors" for g in found
           if _number(g[_GPU_FIELDS[4]]) > 0]  # fmt: skip
    bad += _remapping_trouble()
    if bad:
        return Verdict("gpus", BAD, "; ".join(bad))
    odd = [f"GPU {g['index']} is at {g['temperature.gpu']} C" for g in found
           if _number(g["temperature.gpu"]) >= _HOT_C]  # fmt: skip
    odd += [f"GPU {g['index']} already has {g['memory.used']} MiB in use" for g in found
            if _number(g["memory.used"]) > 0.1 * _number(g["memory.total"])]  # fmt: skip
    says = "; ".join(odd) or f"{len(found)} x {found[0]['name']}"
    return Verdict("gpus", DOUBTFUL if odd else GOOD, says)


def _remapping_trouble() -> list[str]:
    """Memory rows that could not be replaced; nothing for GPUs that do not replace rows."""
    try:
        found = _ask_driver(_REMAPPED_FIELDS)
    except (OSError, subprocess.SubprocessError):
        return []  # an older driver knows no such field, and has answered the main question
    return [
        f"GPU {gpu['index']} could not replace bad memory rows"
        for gpu in found
        if gpu["remapped_rows.failure"].lower() in ("yes", "1")
    ]


def _ask_driver(fields: Sequence[str]) -> list[dict[str, str]]:
    words = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=HANGS_S)
    lines = csv.reader(io.StringIO(done.stdout), skipinitialspace=True)
    return [dict(zip(fields, row, strict=True)) for row in lines if row]


def check_compute(asked: int, timeout_s: float = HANGS_S) -> Verdict:
    """Whether every GPU allocates memory and multiplies matrices right.

    In a process of its own: a GPU that hangs cannot hang the job, and no context is left behind.
    """
    words = [sys.executable, "-m", "hpc.cluster.gpu_probe", str(asked)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return Verdict("compute", BAD, f"no product of matrices in {timeout_s:.0f} s")
    says = (done.stdout if done.returncode == 0 else done.stdout + done.stderr).strip()
    last = says.splitlines()[-1] if says else f"ended with {done.returncode}"
    return Verdict("compute", GOOD if done.returncode == 0 else BAD, last)


def _judged(name: str, check: Callable[[], Verdict], hangs_s: float = 2 * HANGS_S) -> Verdict:
    """The verdict of `check`; a file system that hangs keeps its thread, never the job."""
    begin = time.monotonic()
    found: list[Verdict] = []
    # A daemon, so that not even the end of the process waits for it.
    thread = threading.Thread(target=lambda: found.append(_tried(name, check)), daemon=True)
    thread.start()
    thread.join(timeout=hangs_s)
    verdict = found[0] if found else Verdict(name, BAD, f"no answer in {hangs_s:.0f} s")
    return dataclasses.replace(verdict, seconds=time.monotonic() - begin)


def _tried(name: str, check: Callable[[], Verdict]) -> Verdict:
    try:
        return check()
    except OSError as error:
        return Verdict(name, BAD, str(error))
    except HpcError as error:
        # A full quota is full on every node.
        return Verdict(name, DOUBTFUL, str(error))


def _number(text: str) -> float:
    """The number the driver gave; 0 for `[N/A]` and its like."""
    try:
        return float(text)
    except ValueError:
        return 0.0
