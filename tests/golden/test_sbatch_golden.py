"""The scripts every shipped profile turns into: a change here is a change for every user.

After a change that is meant: `SARHPC_REWRITE_GOLDEN=1 pytest tests/golden/test_sbatch_golden.py`,
and read the difference.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from hpc.cluster.batch import BatchJob, script_text
from hpc.cluster.profile import load_profile
from sarhpc.launch.job import StageWork

GOLDEN = Path(__file__).parent / "sbatch"
PROFILES = sorted((Path(__file__).parents[2] / "slurm" / "profiles").glob("*.yaml"))
ON_SLURM = [path for path in PROFILES if path.stem != "local"]
RUN = Path("/scratch/me/runs/s1")


@pytest.mark.parametrize("stage", ["tile", "train", "generate"])
@pytest.mark.parametrize("path", ON_SLURM, ids=lambda path: path.stem)
def test_the_script_of_a_stage_is_as_agreed(
    path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SARHPC_PROJECT", "abc")
    for name in ("SCRATCH", "CINECA_SCRATCH"):
        monkeypatch.setenv(name, "/scratch/me")
    profile = dataclasses.replace(load_profile(path), python="/opt/sarhpc/bin/python")
    resources = profile.resources_of(stage)
    job = BatchJob(
        name=f"s1-{stage}",
        comment=f"sarhpc:s1:{stage}:0123abcd-3",
        work=StageWork(str(RUN), stage, submission=2),
        script=RUN / "submit" / f"002-{stage}.sbatch",
        logs=RUN / stage / "logs",
        resources=resources,
        profile=profile,
        code=RUN / "code" / "0123456789abcdef",
        elements=resources.elements if resources.elements > 1 else None,
        exclude=("node07", "node12") if stage == "train" else (),
    )
    golden = GOLDEN / f"{path.stem}-{stage}.sbatch"
    if os.environ.get("SARHPC_REWRITE_GOLDEN") == "1":
        golden.write_text(script_text(job))
    assert script_text(job) == golden.read_text()
