"""Tests that share a Slurm cluster or a finished run land on one process.

Some pairs of pytest and xdist ignore the groups without a word (pytest-xdist issue 1386).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_a_group_runs_on_one_worker(tmp_path: Path) -> None:
    (tmp_path / "test_grouped.py").write_text(
        "import pytest\n"
        "pytestmark = pytest.mark.xdist_group('one')\n"
        "@pytest.mark.parametrize('index', range(6))\n"
        "def test_it(index, worker_id):\n"
        "    open(f'worker-{worker_id}', 'w').close()\n"
    )
    words = ["-q", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider"]
    subprocess.run([sys.executable, "-m", "pytest", *words], cwd=tmp_path, check=True)
    assert len(list(tmp_path.glob("worker-*"))) == 1
