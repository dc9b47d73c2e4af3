"""Which libraries a rank imports before its first step."""

from __future__ import annotations

import json
import os
import subprocess
import sys

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
