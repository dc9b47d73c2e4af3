"""The scripts for those who write sbatch scripts: short, whole, in plain bash."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "slurm"
SCRIPTS = ("pipeline", "tile", "caption", "train", "generate", "evaluate", "supervise")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_short_plain_bash_that_says_how_to_use_it(name: str) -> None:
    path = FOLDER / f"{name}.sbatch"
    lines = path.read_text().splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert f"sbatch slurm/{name}.sbatch RUN" in path.read_text()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_without_a_run_says_what_it_wants_and_ends(name: str, tmp_path: Path) -> None:
    """It went on, and in a run directory it would have worked on that."""
    done = subprocess.run(
        ["bash", str(FOLDER / f"{name}.sbatch")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    [said] = done.stderr.splitlines()
    assert f"usage: sbatch slurm/{name}.sbatch RUN" in said
