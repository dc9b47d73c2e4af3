"""Node preflight: whether this node is fit for the work, within a minute of a job's start.

Checks for known causes of failed jobs: lost or faulty GPUs, a full or read-only scratch, a wrong
clock, a shared file system that does not respond, fewer cores than requested. A verdict of `bad`
ends the job on this node, so that it is requeued to another; `doubtful` is only logged. The node
is put on the list of bad nodes for what it shares with no other; `shared_folders` has the rest.
"""

from __future__ import annotations

import contextlib
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.cluster.bad_nodes import EXPIRY_H, BadNodeList
from hpc.cluster.gpu_driver import TorchBuildError
from hpc.cluster.shared_folders import Blame, SharedFolder
from hpc.errors import HpcError, IncompleteError, TransientError
from hpc.publish import publish_text
from hpc.shell import quoted

GOOD, DOUBTFUL, BAD = "good", "doubtful", "bad"

CLOCK_S = 5.0
"""Difference between this clock and the file system's, s, above which heartbeats are wrong."""
SLOW_S = 20.0
"""Time to publish one small file, s, above which a file system is doubtful."""
CHECK_TIMEOUT_S = 60.0
"""Time after which a check counts as hanging, s."""
SCRATCH_EXPIRY_H = 2.0
"""Hours to exclude a node whose scratch is full: its other jobs end and free it."""
SHARED_EXPIRY_H = 12.0
"""Hours to exclude a node that cannot write to a folder where others can: a mount comes back."""
_GPU_FIELDS = (
    "index", "name", "memory.total", "memory.used", "ecc.errors.uncorrected.volatile.total",
    "temperature.gpu",
)  # fmt: skip
_REMAPPED_FIELDS = ("index", "remapped_rows.failure", "remapped_rows.pending")
_HOT_C = 90

_log = logging.getLogger(__name__)


class BadNodeError(TransientError):
    """This node is not fit for the work; the same job may succeed on another."""


class TooManyBadNodesError(IncompleteError):
    """Most nodes fail the preflight: the cause is elsewhere."""


class SharedFolderError(IncompleteError):
    """A shared folder fails on several nodes: no node is at fault, and no requeue helps."""


@dataclass(frozen=True)
class Verdict:
    """The result of one check of this node."""

    check: str
    verdict: str
    """`good`, `doubtful` or `bad`."""
    message: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Needs:
    """What the work requires of a node."""

    run: Path
    """A folder on the shared file system that the work writes to."""
    scratch: Path | None = None
    """Node-local folder; None if the work does not use one."""
    scratch_bytes: int = 0
    scratch_inodes: int = 0
    cpus: int = 0
    """Cores this process should have; 0 skips the check."""
    gpus: int = 0
    """GPUs this node should have; 0 skips the check."""
    compute: bool = True
    """Whether to test a matrix product on each GPU (about 10 s)."""


def preflight(needs: Needs) -> list[Verdict]:
    """Verdicts of all checks of this node; a check that hangs is `bad`, none raises."""
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
    return [_timed(name, check) for name, check in checks]


def require_fit_node(needs: Needs, listed: BadNodeList | None = None) -> list[Verdict]:
    """The verdicts, logged one per line; raises if one is `bad`.

    Args:
        needs: what the work requires.
        listed: list of bad nodes to add this node to, so that it gets no other job.

    Raises:
        BadNodeError: a verdict is `bad`; the message names it, and the command to forgive the node.
        TooManyBadNodesError: so many nodes are bad that a requeue does not help.
        SharedFolderError: a folder that the nodes share is at fault.
    """
    verdicts = preflight(needs)
    node = node_name()
    for verdict in verdicts:
        level = logging.INFO if verdict.verdict == GOOD else logging.WARNING
        _log.log(
            level, "preflight node=%s check=%s verdict=%s seconds=%.1f: %s",
            node, verdict.check, verdict.verdict, verdict.seconds, verdict.message,
        )  # fmt: skip
    _judge_shared_folders(needs, verdicts, node, listed)
    bad = [verdict for verdict in verdicts if verdict.verdict == BAD]
    if not bad:
        return verdicts
    reason = _reason(bad)
    if listed is not None:
        transient = all(verdict.check == "scratch" for verdict in bad)
        _mark_bad(listed, node, reason, SCRATCH_EXPIRY_H if transient else EXPIRY_H)
    raise _unfit(node, reason)


def _reason(bad: Sequence[Verdict]) -> str:
    return "; ".join(f"{verdict.check}: {verdict.message}" for verdict in bad)


def _unfit(node: str, reason: str) -> BadNodeError:
    return BadNodeError(
        f"node {node} is not fit: {reason}. `sarhpc nodes` lists it; "
        f"`sarhpc nodes --forgive {node}` allows jobs there again."
    )


def _judge_shared_folders(
    needs: Needs, verdicts: Sequence[Verdict], node: str, listed: BadNodeList | None
) -> None:
    """Raise if only folders that other nodes share are bad; record those that are good."""
    folders = {"files": needs.run}
    if needs.scratch is not None and _same_file_system(needs.scratch, needs.run):
        folders["scratch"] = needs.scratch
    bad = [verdict for verdict in verdicts if verdict.verdict == BAD]
    if bad and any(verdict.check not in folders for verdict in bad):
        return
    for verdict in verdicts:
        if listed is None or verdict.check not in folders:
            continue
        shared = SharedFolder(listed.cluster, folders[verdict.check], listed.state)
        if verdict.verdict == BAD:
            raise _blamed(shared, node, _reason(bad), listed)
        if verdict.verdict == GOOD:
            with _state_optional():
                shared.record_success(node)
    if bad:
        raise BadNodeError(f"node {node} is not fit: {_reason(bad)}")


def _blamed(shared: SharedFolder, node: str, reason: str, listed: BadNodeList) -> HpcError:
    """The error by which a job ends whose node cannot use a folder that other nodes share."""
    blame = Blame.UNKNOWN
    with _state_optional():
        blame = shared.record_failure(node, reason)
    if blame is Blame.NODE:
        others = ", ".join(name for name in shared.succeeded_nodes() if name != node)
        reason = f"{reason}; meanwhile {others} could"
        _mark_bad(listed, node, reason, SHARED_EXPIRY_H)
        return _unfit(node, reason)
    advice = (
        f"Check owner, mode, quota and mount of {shared.folder}, for example with "
        f"`touch {quoted(shared.folder)}/x` on a node, then `sarhpc resume RUN`"
    )
    if blame is Blame.FOLDER:
        nodes = ", ".join(shared.failed_nodes())
        return SharedFolderError(
            f"{shared.folder} cannot be used on {nodes} ({reason}), and no other node could use "
            f"it meanwhile: the folder is at fault, no node is excluded. {advice}."
        )
    return BadNodeError(
        f"{shared.folder} cannot be used on node {node} ({reason}). The node is not put on the "
        f"list, since the folder may be at fault; the job tries another node. {advice}."
    )


@contextlib.contextmanager
def _state_optional() -> Iterator[None]:
    """A home directory that cannot be written is no reason to end a job."""
    try:
        yield
    except (OSError, HpcError) as error:
        _log.warning("not recorded for other nodes: %s", error)


def _same_file_system(folder: Path, run: Path) -> bool:
    """Whether a folder is on the run's file system, which other nodes share."""
    try:
        return folder.stat().st_dev == run.stat().st_dev
    except OSError:
        return False


def _mark_bad(listed: BadNodeList, node: str, reason: str, hours: float) -> None:
    from hpc.cluster import slurm

    job = os.environ.get("SLURM_JOB_ID")
    try:
        listed.mark(node, reason, job=job, hours=hours)
    except OSError as error:
        _log.warning("node=%s cannot be put on the list of bad nodes: %s", node, error)
        return
    try:
        existing = {known.name for known in slurm.nodes()} if job else set()
    except HpcError as error:
        _log.warning("the number of remaining nodes is unknown: %s", error)
        return
    if existing and listed.too_many(existing):
        raise TooManyBadNodesError(
            f"node {node} is not fit: {reason}. More than half of the cluster is marked bad, so "
            "a requeue does not help: check `sarhpc nodes` for a common cause, then "
            "`sarhpc nodes --forgive NODE` and `sarhpc resume RUN`."
        )


def node_name() -> str:
    """Slurm's name of this node, or the host's short name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname().partition(".")[0]


def check_shared_files(folder: Path) -> Verdict:
    """Whether the shared file system is writable and its clock agrees with this node's."""
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
        message = f"clock is {skew:.0f} s off that of {folder}: heartbeats and leases are wrong"
        return Verdict("files", DOUBTFUL, message)
    if took > SLOW_S:
        return Verdict("files", DOUBTFUL, f"one small file in {folder} took {took:.0f} s")
    return Verdict("files", GOOD, f"{folder} wrote a file in {took:.2f} s")


def check_shared_memory(folder: Path = Path("/dev/shm"), least_mb: int = 64) -> Verdict:  # noqa: S108
    """Whether there is shared memory for data loaders."""
    if not folder.is_dir():
        return Verdict("memory", DOUBTFUL, f"no {folder}: data loaders with workers fail")
    free_mb = shutil.disk_usage(folder).free // 2**20
    verdict = GOOD if free_mb >= least_mb else DOUBTFUL
    return Verdict("memory", verdict, f"{free_mb} MB free in {folder}")


def check_scratch(folder: Path, need_bytes: int, need_inodes: int) -> Verdict:
    """Whether node-local scratch exists, is writable, and has enough bytes and inodes."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return Verdict("scratch", BAD, f"{folder} is missing or not writable")
    usage = os.statvfs(folder)
    free, inodes = usage.f_bavail * usage.f_frsize, usage.f_favail
    # Some file systems do not count inodes and report 0 of 0.
    short = free < need_bytes or (usage.f_files > 0 and inodes < need_inodes)
    message = f"{folder} has {free / 1e9:.1f} GB and {inodes} inodes free"
    if short:
        message += f", {need_bytes / 1e9:.1f} GB and {need_inodes} inodes are needed"
    return Verdict("scratch", BAD if short else GOOD, message)


def check_cores(requested: int) -> Verdict:
    """Whether this process may use the requested cores."""
    have = len(os.sched_getaffinity(0))
    if have < requested:
        message = f"bound to {have} cores of {requested}: pass --cpus-per-task to srun too"
        return Verdict("cores", DOUBTFUL, message)
    return Verdict("cores", GOOD, f"{have} cores")


def check_gpus(requested: int) -> Verdict:
    """Whether the driver shows the GPUs, without memory errors, not hot and not in use."""
    if shutil.which("nvidia-smi") is None:
        return Verdict("gpus", DOUBTFUL, "no nvidia-smi here, so the GPUs were not checked")
    try:
        found = _ask_driver(_GPU_FIELDS)
    except (OSError, subprocess.SubprocessError) as error:
        return Verdict("gpus", BAD, f"the GPU driver does not respond: {error}")
    if len(found) < requested:
        return Verdict("gpus", BAD, f"{len(found)} GPUs are visible, {requested} were requested")
    bad = [f"GPU {g['index']} has {g[_GPU_FIELDS[4]]} uncorrected memory errors" for g in found
           if _number(g[_GPU_FIELDS[4]]) > 0]  # fmt: skip
    bad += _remapping_errors()
    if bad:
        return Verdict("gpus", BAD, "; ".join(bad))
    odd = [f"GPU {g['index']} is at {g['temperature.gpu']} C" for g in found
           if _number(g["temperature.gpu"]) >= _HOT_C]  # fmt: skip
    odd += [f"GPU {g['index']} already has {g['memory.used']} MiB in use" for g in found
            if _number(g["memory.used"]) > 0.1 * _number(g["memory.total"])]  # fmt: skip
    message = "; ".join(odd) or f"{len(found)} x {found[0]['name']}"
    return Verdict("gpus", DOUBTFUL if odd else GOOD, message)


def _remapping_errors() -> list[str]:
    """GPUs with memory rows that could not be remapped; empty if they do not remap rows."""
    try:
        found = _ask_driver(_REMAPPED_FIELDS)
    except (OSError, subprocess.SubprocessError):
        return []  # an older driver does not have these fields
    return [
        f"GPU {gpu['index']} could not remap bad memory rows"
        for gpu in found
        if gpu["remapped_rows.failure"].lower() in ("yes", "1")
    ]


def _ask_driver(fields: Sequence[str]) -> list[dict[str, str]]:
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=CHECK_TIMEOUT_S
    )
    lines = csv.reader(io.StringIO(done.stdout), skipinitialspace=True)
    return [dict(zip(fields, row, strict=True)) for row in lines if row]


def check_compute(requested: int, timeout_s: float = CHECK_TIMEOUT_S) -> Verdict:
    """Whether every GPU allocates memory and computes a correct matrix product.

    Runs in a separate process: a GPU that hangs cannot hang the job, and no context is left behind.
    """
    command = [sys.executable, "-m", "hpc.cluster.gpu_probe", str(requested)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return Verdict("compute", BAD, f"no matrix product in {timeout_s:.0f} s")
    message = (done.stdout if done.returncode == 0 else done.stdout + done.stderr).strip()
    last = message.splitlines()[-1] if message else f"ended with {done.returncode}"
    if done.returncode == TorchBuildError.exit_code:
        return Verdict("compute", DOUBTFUL, last)
    return Verdict("compute", GOOD if done.returncode == 0 else BAD, last)


def _timed(
    name: str, check: Callable[[], Verdict], timeout_s: float = 2 * CHECK_TIMEOUT_S
) -> Verdict:
    """The verdict of `check`; a hanging file system blocks its thread, never the job."""
    begin = time.monotonic()
    found: list[Verdict] = []
    # A daemon thread, which is not joined at exit either.
    thread = threading.Thread(target=lambda: found.append(_caught(name, check)), daemon=True)
    thread.start()
    thread.join(timeout=timeout_s)
    verdict = found[0] if found else Verdict(name, BAD, f"no answer in {timeout_s:.0f} s")
    return dataclasses.replace(verdict, seconds=time.monotonic() - begin)


def _caught(name: str, check: Callable[[], Verdict]) -> Verdict:
    try:
        return check()
    except OSError as error:
        return Verdict(name, BAD, str(error))
    except HpcError as error:
        # A full quota is full on every node.
        return Verdict(name, DOUBTFUL, str(error))


def _number(text: str) -> float:
    """The number from the driver; 0 for `[N/A]` and similar."""
    try:
        return float(text)
    except ValueError:
        return 0.0
