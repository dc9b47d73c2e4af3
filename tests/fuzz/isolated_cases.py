"""Cases in forked processes, each within a time and a memory; crashes and hangs are attributed.

What a case did is a line on a pipe. Whoever is silent for too long is killed, and the cases after
it go on in another process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.errors import HpcError


@dataclass(frozen=True)
class Limits:
    """What one case may use."""

    seconds: float = 30.0
    resident_bytes: int = 1 << 30
    """Memory in use beyond that of the process before its first case."""
    address_bytes: int = 8 << 30
    """Address space beyond that of the process before its first case."""


@dataclass(frozen=True)
class Finding:
    """A case that did not end in a result or a documented error."""

    case: str
    problem: str

    def __str__(self) -> str:
        return f"{self.case}: {self.problem}"


def problem_of(call: Callable[[], object], names: Sequence[str]) -> str | None:
    """What is wrong with how `call` ends; None for a result, or an HpcError with one of `names`."""
    try:
        call()
    except HpcError as error:
        named = any(name in str(error) for name in names)
        return None if named else f"error that names no file: {error!r}"[:400]
    # Panics of Rust code are no Exception.
    except BaseException as error:
        return f"{_where(error)} {type(error).__name__}: {str(error)[:300]}"
    return None


def _where(error: BaseException) -> str:
    """The last line of this project that the error passed."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/sarhpc/" in f.filename or "/hpc/" in f.filename]
    last = own[-1] if own else frames[-1]
    return f"{'/'.join(Path(last.filename).parts[-3:])}:{last.lineno} ({last.name})"


def run_isolated(
    cases: Sequence[str], check: Callable[[str], str | None], limits: Limits | None = None
) -> list[Finding]:
    """The findings among `cases`; `check` returns what is wrong with one, or None."""
    findings: list[Finding] = []
    first = 0
    while first < len(cases):
        done, finding = _run_process(cases[first:], check, limits or Limits())
        findings += done
        first = _next(cases, first, finding)
        if finding is not None:
            findings.append(finding)
    return findings


def _next(cases: Sequence[str], first: int, finding: Finding | None) -> int:
    return len(cases) if finding is None else cases.index(finding.case, first) + 1


def _run_process(
    cases: Sequence[str], check: Callable[[str], str | None], limits: Limits
) -> tuple[list[Finding], Finding | None]:
    """Findings of cases that ended, and the one that ended the process."""
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _work(cases, check, limits, write_end)
    os.close(write_end)
    try:
        findings, current = _listen(read_end, limits, child)
    finally:
        os.close(read_end)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if current is None:
        return findings, None
    case, why = current
    ended = why or f"process ended: {_describe(status)}"
    return findings, Finding(case, ended)


def _describe(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit {os.waitstatus_to_exitcode(status)}"


def _work(
    cases: Sequence[str], check: Callable[[str], str | None], limits: Limits, pipe: int
) -> None:
    code = 1
    try:
        # What libraries print of damaged files is theirs.
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        sys.stdout = sys.stderr = os.fdopen(silent, "w")
        faulthandler.disable()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = used + limits.address_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        before = _peak_resident()
        for case in cases:
            _tell(pipe, {"case": case})
            problem = check(case)
            peak = _peak_resident() - before
            if problem is None and peak > limits.resident_bytes:
                problem = f"{peak >> 20} MiB in use"
            _tell(pipe, {"problem": problem})
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak
        code = 0
    finally:
        os._exit(code)


def _peak_resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def _tell(pipe: int, row: dict[str, str | None]) -> None:
    os.write(pipe, (json.dumps(row) + "\n").encode())


def _listen(
    pipe: int, limits: Limits, child: int
) -> tuple[list[Finding], tuple[str, str | None] | None]:
    """Findings, and the case that was under way at the end with the reason for a kill."""
    findings: list[Finding] = []
    current: str | None = None
    text = b""
    until = time.monotonic() + limits.seconds
    while True:
        left = until - time.monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            return findings, (current or "", f"not ended after {limits.seconds:.0f} s")
        data = os.read(pipe, 65536)
        if not data:
            return findings, None if current is None else (current, None)
        text += data
        *lines, text = text.split(b"\n")
        for line in lines:
            row = json.loads(line)
            until = time.monotonic() + limits.seconds
            if "case" in row:
                current = row["case"]
                continue
            if row["problem"] is not None:
                findings.append(Finding(current or "", row["problem"]))
            current = None
