"""A fresh run, its base model and its configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from line_runs import TINY, tiny_run
from model_folders import model_layout

from hpc.store.rundir import RunDir


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_layout(tmp_path / "model")


@pytest.fixture
def run(tmp_path: Path, model: Path) -> RunDir:
    return tiny_run(tmp_path / "run", model)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path
