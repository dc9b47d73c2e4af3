"""Completion at the TAB of a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.cluster.profile import profile_names
from sarhpc.cli.verb_groups import ENTRIES
from sarhpc.stages.registry import STAGES

pytest.importorskip("argcomplete", reason="not installed here: it is a dependency of sarhpc")

BASH = """
eval "$(python -m argcomplete.scripts.register_python_argcomplete sarhpc)"
while IFS= read -r COMP_LINE; do
  COMP_POINT=${#COMP_LINE} COMP_TYPE=9 COMPREPLY=()
  _python_argcomplete sarhpc
  (IFS=$'\\x1f'; echo "${COMPREPLY[*]}")
done
"""


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder with `sarhpc` and `python` of this interpreter, wherever it is installed."""
    for name, words in {"python": "", "sarhpc": "-m sarhpc.cli"}.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        file.chmod(0o755)
    return tmp_path / "bin"


def offered(commands: Path, *lines: str) -> list[list[str]]:
    """What bash gets for each line that is typed up to a TAB."""
    env = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": os.getcwd()}
    typed = "".join(f"{line}\n" for line in lines)
    bash = [str(shutil.which("bash")), "--norc", "-c", BASH]
    done = subprocess.run(
        bash, input=typed, capture_output=True, text=True, env=env, timeout=120, check=True
    )
    return [
        line.split("\x1f") if line else [] for line in done.stdout.removesuffix("\n").split("\n")
    ]


def test_verbs_flags_settings_profiles_and_stages_are_offered(commands: Path) -> None:
    (
        verbs,
        verb,
        flag,
        profiles,
        stages,
        branch,
        keys,
        late,
        values,
        layouts,
        runs,
        template,
        nothing,
    ) = offered(
        commands,
        "sarhpc ",
        "sarhpc sup",
        "sarhpc run runs/x --pro",
        "sarhpc run runs/x --profile ",
        "sarhpc logs runs/x --stage ",
        "sarhpc run runs/x tra",
        "sarhpc init runs/x train.lr",
        "sarhpc run runs/x --config c.yaml --wait tile.split.",
        "sarhpc run runs/x train.deterministic=",
        "sarhpc export-corpus runs/x out --layout ",
        "sarhpc status hpc/obs",
        "sarhpc init runs/x --template sdxl_h",
        "sarhpc run runs/x no.such.key",
    )
    assert {*ENTRIES} <= {*verbs}
    assert verb == ["supervise "]
    assert flag == ["--profile "]
    assert profiles == profile_names()
    assert stages == [spec.name for spec in STAGES]
    assert {"train.lr_unet=", "train.judge."} <= {*branch}
    assert {"train.lr_unet=", "train.lr_schedule="} <= {*keys}
    assert {key[:8] for key in keys} == {"train.lr"}
    assert {"tile.split.fractions=", "tile.split.cell_m="} <= {*late}
    assert values == ["false", "true"]
    assert {"imagefolder", "cog", "cog-db", "sarlo80", "sidd"} == {*layouts}
    assert runs == ["hpc/observe/"]
    assert template == ["sdxl_hybrid "]
    assert nothing == []


def test_help_takes_no_longer_for_it() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sarhpc.cli", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "argcomplete" not in done.stderr
    assert "sarhpc.cli.completion" not in done.stderr
