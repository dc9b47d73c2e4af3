"""The offline run of a killed and resumed training is that of the undisturbed one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from offline_runs import history
from test_exact_resume import run_with_kill
from training_ranks import Job

pytestmark = pytest.mark.slow


def told(job: Job) -> list[dict[str, Any]]:
    """What the run of a training says that no clock has a part in."""
    names = ("_step", "loss", "grad_norm", "lr/unet", "ema_decay")
    return [{name: row[name] for name in names} for row in history(job.root)]


def test_killed_ranks_leave_every_step_once(tiny_bundle: Path, tmp_path: Path) -> None:
    # Rank 0, which writes, dies after the fourth step; the checkpoint is of the second.
    faults = {0: "training.after_step:4:kill"}
    whole, resumed = run_with_kill(tiny_bundle, tmp_path, faults, steps=5, every=2, wandb=True)
    assert [row["_step"] for row in told(whole)] == [1, 2, 3, 4, 5]
    assert told(resumed) == told(whole)
