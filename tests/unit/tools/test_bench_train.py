"""The benchmark of training runs on an SDXL model too, and its table says what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_bundle import make_bundle

TOOL = Path(__file__).resolve().parents[3] / "tools" / "bench_train.py"


@pytest.mark.long
def test_the_stock_recipe_and_ours_are_measured_in_one_run(tmp_path: Path) -> None:
    bundle, file = make_bundle(tmp_path / "made", xl=True), tmp_path / "told.json"
    words = f"--bundle {bundle} --turns 1 --steps 2 --warmup 1 --samples 8 --global-batch 4"
    command = [sys.executable, str(TOOL), *words.split(), "--micro-batch=2", f"--json={file}"]
    done = subprocess.run(
        [*command, "--levers", "scores stored"],
        check=True,
        capture_output=True,
        text=True,
    )
    told = json.loads(file.read_text())
    sides = told["sides"]
    assert set(sides) == {"stock", "ours", "ours, scores stored"}
    assert all(name in done.stdout for name in sides)
    assert sides["stock"]["ratio"] == 1.0
    assert told["matrix_peak"] > 1e9
    for side in sides.values():
        assert side["step_s"] > 0
        assert 0 < side["mfu"] < 1
    assert 0 < sides["ours"]["outside"] < 1
