"""The measure of the guide works: its edits apply, and an evaluation shows what they add."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
GUIDE = REPOSITORY / "docs" / "guide"

EVALUATION = """
import json
import numpy as np
from sarhpc.evaluation.config import EvaluateConfig
from sarhpc.evaluation.suite import evaluate

rng = np.random.default_rng(0)
real = np.clip(rng.rayleigh(60, (16, 64, 64)), 0, 255).astype(np.uint8)
shaded = real.copy()
shaded[:, :, :16] = 1
sets = {"alike": real[::-1].copy(), "shaded": shaded}
evaluation = evaluate(real, sets, EvaluateConfig(bootstrap=20)).to_json()
print(json.dumps({name: found["measures"] for name, found in evaluation["sets"].items()}))
"""


def page() -> str:
    """The section of the guide."""
    found = (GUIDE / "extending.md").read_text()
    [section] = re.findall(r"^## A measure\n.*?(?=^## |\Z)", found, re.DOTALL | re.MULTILINE)
    return str(section)


def test_the_measure_of_the_guide_is_evaluated(tmp_path: Path) -> None:
    for name in ("__init__.py", "measures", "evaluation", "shards"):
        source, target = REPOSITORY / "sarhpc" / name, tmp_path / "sarhpc" / name
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    edits = re.findall(r"```diff\n(.*?)```", page(), re.DOTALL)
    assert len(edits) == 2, "a measure takes two files"
    # Outside a repository, so that git applies to plain files.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    for edit in edits:
        subprocess.run(
            ["git", "apply"], input=edit, text=True, cwd=tmp_path, env=environment, check=True
        )
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    done = subprocess.run(
        [sys.executable, "-c", EVALUATION],
        cwd=tmp_path,
        env=environment,
        text=True,
        capture_output=True,
        check=True,
    )
    measures = json.loads(done.stdout)
    assert measures["alike"]["E3_shadow"]["raw"] == 0
    # 16 columns of 64, of which 1 - exp(-14.3^2 / (2 60^2)) = 3 % were dark before.
    assert measures["shaded"]["E3_shadow"]["raw"] == pytest.approx(0.97 * 16 / 64, abs=0.01)
