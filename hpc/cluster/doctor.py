"""The doctor: checks of this machine, each finding with advice.

Checks of the cluster through Slurm are in `site`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.cluster.health import BAD, GOOD, check_compute, check_gpus
from hpc.errors import HpcError
from hpc.publish import publish_text

OK, WARN, FAIL = "ok", "warn", "fail"

MIN_FREE_GB = 20.0
MIN_FREE_INODES = 50_000
"""A run has fewer than 5,000 files; the rest is for its shards and for other users."""
MANY_FILES = 20_000
SLOW_IMPORT_S = 15.0
SLOW_PUBLISH_S = 0.2
_COUNT_FOR_S = 10.0

# Used where the system cannot remove the network: the interpreter itself refuses connections.
_NO_SOCKETS = """
import sys
def _refuse(event, details):
    if event in ("socket.connect", "socket.getaddrinfo") and not str(details[-1]).startswith("/"):
        raise OSError(f"network access refused: {details[-1]}")
sys.addaudithook(_refuse)
"""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    check: str
    state: str
    """`ok`, `warn` (works, but) or `fail` (work here will fail)."""
    message: str
    advice: str = ""
    """What to do about it; empty if nothing."""

    def to_json(self) -> dict[str, str]:
        """The finding as `doctor --json` shows it."""
        return {"check": self.check, "state": self.state, "says": self.message, "do": self.advice}


def run_check(check: str, perform: Callable[[], Finding]) -> Finding:
    """The finding of `perform`, or a failed one with the reason if it raised."""
    try:
        return perform()
    except (OSError, HpcError, subprocess.SubprocessError, ValueError) as error:
        return Finding(check, FAIL, " ".join(str(error).split())[:300])


def check_python(packages: Sequence[str]) -> Iterator[Finding]:
    """Findings on the interpreter, its packages and their number of files."""
    version = ".".join(map(str, sys.version_info[:3]))
    right = sys.version_info >= (3, 11)
    yield Finding("python", OK if right else FAIL, f"{version} in {sys.prefix}",
                  "" if right else "use Python 3.11 or newer")  # fmt: skip
    found = {name: _version(name) for name in packages}
    missing = [name for name, version_ in found.items() if version_ is None]
    if missing:
        yield Finding(
            "packages", FAIL, f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}"
        )
    else:
        yield Finding("packages", OK, " ".join(f"{name}={v}" for name, v in found.items()))
    files = _count_files(Path(sys.prefix))
    many = files > MANY_FILES
    yield Finding(
        "files", WARN if many else OK, f"{files} files in {sys.prefix}",
        "on a shared file system pack them into one: tools/pack_env.py" if many else "",
    )  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _count_files(root: Path) -> int:
    """Number of files below `root`; on a slow file system, those counted in ten seconds."""
    until, count = time.monotonic() + _COUNT_FOR_S, 0
    for _, _, names in os.walk(root):
        count += len(names)
        if time.monotonic() > until:
            break
    return count


def check_imports(modules: Sequence[str]) -> Finding:
    """Time that a new process takes to import `modules`."""
    begin = time.monotonic()
    command = [sys.executable, "-c", f"import {', '.join(modules)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    took = time.monotonic() - begin
    if done.returncode:
        return Finding(
            "imports",
            FAIL,
            done.stderr.strip().splitlines()[-1],
            "pip install --force-reinstall what it names",
        )
    slow = took > SLOW_IMPORT_S
    advice = "every process of a job pays this: keep the environment on local disk" if slow else ""
    return Finding("imports", WARN if slow else OK, f"{', '.join(modules)} in {took:.1f} s", advice)


def folders_to_check(environment: Mapping[str, str]) -> dict[str, Path]:
    """Label -> existing folder to check, each once."""
    named = {name: environment.get(name) for name in ("HOME", "WORK", "SCRATCH", "TMPDIR")}
    folders = {name: Path(text) for name, text in named.items() if text and Path(text).is_dir()}
    folders["here"] = Path.cwd()
    unique: dict[Path, str] = {}
    for name, folder in folders.items():
        unique.setdefault(folder.resolve(), name)
    return {name: folder for folder, name in unique.items()}


def check_folder(name: str, folder: Path) -> Finding:
    """Free bytes and inodes, by the file system and, if there is one, the user's quota."""
    usage = os.statvfs(folder)
    free_gb = usage.f_bavail * usage.f_frsize / 1e9
    message = f"{folder}: {free_gb:.0f} GB and {usage.f_favail} inodes free"
    quota = lustre_quota(folder)
    if quota is not None:
        message += f", by quota {quota[0]:.0f} GB and {quota[1]:.0f}"
    free_gb, inodes = free_space(folder, quota)
    tight = free_gb < MIN_FREE_GB or inodes < MIN_FREE_INODES
    return Finding(f"folder {name}", WARN if tight else OK, message,
                   "keep data and models elsewhere, or make room" if tight else "")  # fmt: skip


def free_space(folder: Path, quota: tuple[float, float] | None) -> tuple[float, float]:
    """GB and inodes that can be written in `folder`, by its file system and a quota there.

    Infinity where a file system counts no inodes.
    """
    usage = os.statvfs(folder)
    free_gb = usage.f_bavail * usage.f_frsize / 1e9
    inodes = float(usage.f_favail) if usage.f_files > 0 else float("inf")
    quota_gb, quota_inodes = quota or (float("inf"), float("inf"))
    return min(free_gb, quota_gb), min(inodes, quota_inodes)


def lustre_quota(folder: Path) -> tuple[float, float] | None:
    """GB and inodes left by the user's quota; None if there is no quota command."""
    if shutil.which("lfs") is None:
        return None
    command = ["lfs", "quota", "-q", "-u", str(os.getuid()), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return parse_lustre_quota(done.stdout) if done.returncode == 0 else None


def parse_lustre_quota(text: str) -> tuple[float, float] | None:
    """GB and inodes left from `lfs quota -q`; infinity without a limit, None if not understood.

    Its columns: file system, kbytes, quota, limit, grace, files, quota, limit, grace; a star marks
    a value over quota.
    """
    found = re.search(
        r"(\d+)\*?\s+(\d+)\s+(\d+)\s+\S+\s+(\d+)\*?\s+(\d+)\s+(\d+)\s+\S+\s*$", text.strip()
    )
    if found is None:
        return None
    kbytes, soft_kb, hard_kb, files, soft, hard = map(int, found.groups())
    limits_kb, limits = [n for n in (soft_kb, hard_kb) if n], [n for n in (soft, hard) if n]
    left_kb = max(min(limits_kb) - kbytes, 0) if limits_kb else float("inf")
    left = max(min(limits) - files, 0) if limits else float("inf")
    return left_kb * 1024 / 1e9, left


def check_publishing(folder: Path, times: int = 20) -> Finding:
    """Time to publish a small file durably in `folder`."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as name:
        begin = time.monotonic()
        for number in range(times):
            publish_text(Path(name) / str(number), "doctor\n")
        took = (time.monotonic() - begin) / times
    slow = took > SLOW_PUBLISH_S
    advice = "use larger shards, or a faster file system for the run directory" if slow else ""
    return Finding("publishing", WARN if slow else OK, f"{took * 1000:.0f} ms a file", advice)


def gpu_findings(*, compute: bool) -> Iterator[Finding]:
    """Findings on the GPUs of this machine, if it has any."""
    if shutil.which("nvidia-smi") is None:
        yield Finding("gpus", OK, "none here; stages with GPUs need nodes that have them")
        return
    for verdict in [check_gpus(1), *([check_compute(1)] if compute else [])]:
        state = {GOOD: OK, BAD: FAIL}.get(verdict.verdict, WARN)
        yield Finding(verdict.check, state, verdict.message)


def count_gpus() -> int:
    """Number of GPUs that the driver shows; 0 without a driver."""
    try:
        command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return len(done.stdout.split()) if done.returncode == 0 else 0


def check_all_reduce(backend: str, ranks: int, timeout_s: float = 180.0) -> Finding:
    """Whether an all-reduce of `ranks` processes on this machine works, and how fast."""
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        command = [sys.executable, "-m", "hpc.cluster.reduce_probe", backend,
                 f"file://{folder}/rendezvous"]  # fmt: skip
        processes = [
            subprocess.Popen(
                command,
                env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(ranks)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(ranks)
        ]
        try:
            ends = [process.communicate(timeout=timeout_s) for process in processes]
        finally:
            for process in processes:
                process.kill()
    if any(process.returncode for process in processes):
        error = next(e for p, (_, e) in zip(processes, ends, strict=True) if p.returncode)
        return Finding(f"all-reduce {backend}", FAIL, error.strip().splitlines()[-1][:300],
                       "check NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME")  # fmt: skip
    return all_reduce_finding(ends[0][0], "on this machine")


def all_reduce_finding(text: str, where: str) -> Finding:
    """The finding from the output of the probe's rank 0."""
    result = json.loads(text.strip().splitlines()[-1])
    met = f"{result['ranks']} ranks {where} connected in {result['meet_s']:.1f} s"
    message = f"{met}, {result['gb_s']:.2f} GB/s"
    return Finding(f"all-reduce {result['backend']}", OK, message)


def check_offline(code: str, arguments: Sequence[str] = (), timeout_s: float = 600.0) -> Finding:
    """Whether `code`, Python that loads what jobs load, runs on `arguments` without a network."""
    bare = _without_network()
    command = [*bare, sys.executable, "-c", code if bare else _NO_SOCKETS + code, *arguments]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    begin = time.monotonic()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=timeout_s, env=env
    )
    took = time.monotonic() - begin
    how = "without a network" if bare else "with sockets refused"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Finding("offline", FAIL, f"{last[:300]} ({how})",
                       "bring the models here first: sarhpc fetch")  # fmt: skip
    return Finding("offline", OK, f"models load {how}, {took:.0f} s")


def _without_network() -> list[str]:
    """Command prefix that removes the network; empty if this user is not allowed to."""
    command = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--net"]
    if shutil.which("unshare") is None:
        return []
    tried = subprocess.run([*command, "true"], capture_output=True, check=False, timeout=30)
    return command if tried.returncode == 0 else []
