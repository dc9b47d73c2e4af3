"""A run in which a file is a pipe, a device or too large: verbs that look at it end."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest
from isolated_cases import Limits, run_isolated
from test_run_folders import VERBS, install

from sarhpc.cli import main

KINDS = ("pipe", "device", "sparse")
LIMITS = Limits(seconds=10.0)


def replaced(path: Path, kind: str) -> None:
    """`path` as another user of a shared folder may have left it."""
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)


def check(run: Path, file: Path, case: str) -> str | None:
    """What ends in another way than with an exit code."""
    replaced(file, case.rpartition("#")[2])
    for verb, *options in VERBS:
        try:
            code = main([verb, str(run), *options])
        except Exception as error:
            return f"{verb}: {type(error).__name__}: {error}"[:300]
        if code not in (0, 1, 2, 3, 4, 5, 75):
            return f"{verb}: exit {code}"
    return None


def findings(place: Path, share: int) -> list[str]:
    run, files = install(place)
    chosen = [*files[::share], run / "config.yaml", run / "run.json"]
    found = []
    for file in dict.fromkeys(chosen):
        data = file.read_bytes()
        for kind in KINDS:
            case = f"{file.relative_to(run).as_posix()}#{kind}"
            found += run_isolated([case], functools.partial(check, run, file), LIMITS)
            file.unlink()
            file.write_bytes(data)
    return [str(finding) for finding in found]


@pytest.mark.slow
def test_looking_at_a_run_with_a_special_file_ends_with_an_exit_code(tmp_path: Path) -> None:
    assert not findings(tmp_path, 8)


@pytest.mark.long
def test_looking_at_a_run_with_any_special_file_ends_with_an_exit_code(tmp_path: Path) -> None:
    found = findings(tmp_path, 1)
    assert not found, "\n".join(found)
