"""Processes that see this machine as another node would: other PIDs, another or the same name."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
_NODE = ["unshare", "--pid", "--uts", "--mount-proc", "--fork", "--kill-child"]


@functools.cache
def _allowed() -> bool:
    return not subprocess.run([*_NODE, "true"], capture_output=True, check=False).returncode


def start_on_other_node(
    code: str, host: str | None = None, clock_s: float = 0.0
) -> subprocess.Popen[str]:
    """A process that runs Python `code` in its own PID namespace.

    Args:
        code: of the process; its output is piped.
        host: its host name; None for that of this machine.
        clock_s: seconds by which its clock of the day is ahead.
    """
    if not _allowed():
        pytest.skip("this user may not create PID and UTS namespaces")
    named = f"hostname {host}; " if host else ""
    ahead = f"import time; real = time.time; time.time = lambda: real() + {clock_s}\n"
    return subprocess.Popen(
        [*_NODE, "sh", "-c", f'{named}exec "$@"', "sh", sys.executable, "-c", ahead + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=REPOSITORY,
        text=True,
    )
