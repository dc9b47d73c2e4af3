"""What a command does in the hands of another user of this machine."""

from __future__ import annotations

import io
import os
import pwd
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")

NOBODY = 65534
SOMEBODY = pwd.getpwnam("daemon").pw_uid


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it printed."""

    code: int
    out: str


def as_user(user_id: int, action: Callable[[], int], state: Path, cwd: Path) -> Outcome:
    """Result of `action` in a process of `user_id` without rights, whose own folder is `state`.

    The process is forked, so that the interpreter and what it has imported may be where that user
    cannot look.
    """
    state.mkdir(exist_ok=True)
    os.chown(state, user_id, user_id)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 99
        said = io.StringIO()
        try:
            os.setgroups([])
            os.setresgid(user_id, user_id, user_id)
            os.setresuid(user_id, user_id, user_id)
            os.environ["SARHPC_STATE"] = str(state)
            os.chdir(cwd)
            with redirect_stdout(said), redirect_stderr(said):
                code = action()
        except SystemExit as leave:
            code = leave.code if isinstance(leave.code, int) else 98
        except BaseException:
            said.write(traceback.format_exc())
        finally:
            os.write(writing, said.getvalue().encode()[-60_000:])
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        out = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    sys.stdout.write(out)
    return Outcome(os.waitstatus_to_exitcode(status), out)


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below `folder` with its time of change."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
