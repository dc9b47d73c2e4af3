"""One process drives everything on the pretended GPU; its results are those of all tests here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from guard import COMPILER, compile_guard

_HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def driven(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each drive found, by its name (a minute)."""
    folder = tmp_path_factory.mktemp("pretended_gpu")
    guard = compile_guard(folder)
    if guard is None and os.environ.get("SARHPC_REQUIRE_COMPILER"):
        pytest.fail(f"no {COMPILER} to compile the CUDA guard; `make compiler-setup` installs it")
    if guard is None:
        pytest.skip(f"no {COMPILER} to compile the CUDA guard: the pretended GPU was NOT tested")
    results = folder / "results.jsonl"
    # A process of its own: the guard has to be there before torch is imported.
    subprocess.run(
        [sys.executable, str(_HERE / "drives.py"), str(results)],
        env={**os.environ, "PRETENDED_CUDA_GUARD": str(guard)},
        check=True,
        capture_output=True,
        text=True,
    )
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    return {row.pop("name"): row for row in rows}
