from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HEAVY = ["torch", "diffusers", "transformers", "rasterio", "dask", "distributed", "numpy", "scipy"]


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, json\n"
        "from sarhpc.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as e: code = e.code\n"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]), file=sys.stderr)"
    )
    seconds = []
    for _ in range(3):
        # Its own work: seconds of the clock would also tell who else is at work here.
        before = os.times()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        after = os.times()
        spent = after.children_user + after.children_system
        seconds.append(spent - before.children_user - before.children_system)
    assert json.loads(done.stderr) == []
    assert "VERB" in done.stdout
    assert min(seconds) < 0.3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["frobnicate"], "invalid choice"),
        (["status"], "required"),
        (["tile", "run", "train.lr=1"], "takes no overrides"),
        (["run", "r", "--nonsense"], "unknown words"),
    ],
)
def test_wrong_usage_exits_2_and_says_why(words: list[str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sarhpc.cli", *words], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert says in done.stderr
