"""Fixtures of the tests with several processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_bundle import make_bundle


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder of real, random, tiny models."""
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def tiny_xl_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of the SDXL topology: two text encoders, micro-conditioning."""
    return make_bundle(tmp_path_factory.mktemp("bundle_xl"), xl=True)
