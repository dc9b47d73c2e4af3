"""Which libraries a rank imports before its first step."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

MODELS = ("transformers", "diffusers", "peft", "scipy", "deepspeed", "tensorboard")


def imported(code: str) -> set[str]:
    """Those of `MODELS` that a process has imported after `code`."""
    ask = f"import json, sys; print(json.dumps([m for m in {MODELS} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{ask}"],
        env={**os.environ, "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_trainer_imports_no_model_library() -> None:
    assert imported("import sarhpc.training.trainer") == set()


@pytest.mark.slow
def test_a_denoising_rank_starts_without_scipy_and_can_import_it_later() -> None:
    joined = "from sarhpc.training.ranks import join; join(1, deterministic=True, seed=0)"
    task = "from sarhpc.training.denoising.task import DenoisingTask"
    found = imported(f"{joined}\n{task}\nimport diffusers; diffusers.StableDiffusionPipeline")
    assert found == {"transformers", "diffusers", "peft", "deepspeed"}
    assert "scipy" in imported(f"{task}\nimport scipy.stats")


@pytest.mark.slow
def test_libraries_that_know_of_scipy_keep_it() -> None:
    known = "import transformers.utils; assert transformers.utils.is_scipy_available()"
    assert "scipy" in imported(f"{known}\nimport sarhpc.training.denoising.task")
