"""A verb started in somebody else's folder, and what its processes import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHILD = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, *{words!r}]).returncode)"
COMMAND = "import sys; from sarhpc.cli import main; sys.argv[1:] = ['--version']; main()\n"


def _child_finds_module(tmp_path: Path, *, launched_from_folder: bool) -> bool:
    """Whether a process that `sarhpc` starts in a folder imports a module that lies there."""
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "planted.py").write_text("")
    script = tmp_path / "bin" / "sarhpc"
    script.parent.mkdir()
    script.write_text(COMMAND + CHILD.format(words=["-c", "import planted"]))
    env = {name: text for name, text in os.environ.items() if name != "PYTHONSAFEPATH"}
    if launched_from_folder:
        env["PYTHONPATH"] = str(folder)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, env=env, capture_output=True, check=False
    )
    return done.returncode == 0


def test_processes_of_a_verb_import_nothing_from_the_working_directory(tmp_path: Path) -> None:
    assert not _child_finds_module(tmp_path, launched_from_folder=False)


def test_who_imports_from_the_working_directory_keeps_it(tmp_path: Path) -> None:
    assert _child_finds_module(tmp_path, launched_from_folder=True)
