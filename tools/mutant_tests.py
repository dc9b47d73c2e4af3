"""Run the same tests again and again, each time in a fork that has their packages imported.

    python tools/mutant_tests.py OUTPUT TEST ...

Started by `mutants.py` in the tree under test, by the Python of the project. For each line on
standard input, a time limit in seconds, it runs the tests once and answers with one line: `passed`,
`failed` or `timeout`. What the tests print is in the file OUTPUT. Modules of the tree itself are
imported anew each time.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest

ARGUMENTS = ("-x", "-q", "-m", "not long", "-p", "no:cacheprovider", "-p", "pytest_timeout")


def main(output: str, *tests: str) -> None:
    """Answer until standard input ends."""
    # Two changes of a file within a second may have the same size: bytecode would hide the second.
    sys.dont_write_bytecode = True
    imported = Path(f"{output}.imported")
    imported.unlink(missing_ok=True)
    for number, line in enumerate(sys.stdin):
        pid = os.fork()
        if pid == 0:
            _run_tests(tests, Path(output), imported)
        answer = _wait(pid, float(line))
        if number == 0 and imported.exists():
            import_packages(imported.read_text().split())
        print(answer, flush=True)


def _run_tests(tests: Sequence[str], output: Path, imported: Path) -> None:
    """Run the tests and exit; `imported` receives the packages that they imported."""
    status = 1
    try:
        os.setsid()
        with output.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        status = int(pytest.main([*ARGUMENTS, *tests]))
        if not imported.exists():
            imported.write_text("\n".join(packages()))
    finally:
        sys.stdout.flush()
        os._exit(status)


def _wait(pid: int, limit_s: float) -> str:
    """How the tests ended; nothing of their process group is left behind."""
    ends = time.monotonic() + limit_s
    done = status = 0
    while done == 0 and time.monotonic() < ends:
        done, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0 if done else 0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if done == 0:
        os.waitpid(pid, 0)
        return "timeout"
    return "passed" if status == 0 else "failed"


def packages() -> list[str]:
    """Imported modules outside the tree, in the order of their import, without pytest plugins."""
    tree, found = Path.cwd(), []
    for name, module in list(sys.modules.items()):
        origin = getattr(getattr(module, "__spec__", None), "origin", None) or ""
        if not name.startswith("pytest_") and tree not in Path(origin).resolve().parents:
            found.append(name)
    return found


def import_packages(names: Sequence[str]) -> None:
    """Import what can be imported by its name alone."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        for name in names:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    gc.freeze()  # pytest collects garbage at its end: twice through all packages otherwise


if __name__ == "__main__":
    main(*sys.argv[1:])
