"""What unit tests share: fake Slurm commands, reports without figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_slurm import COMMANDS, FakeSlurm


@pytest.fixture
def fake_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeSlurm]:
    """Makes a site whose commands are all there are on PATH; pauses cost no time."""

    def make(without: tuple[str, ...] = ()) -> FakeSlurm:
        kept = tuple(command for command in COMMANDS if command not in without)
        site = FakeSlurm(tmp_path / "site", kept)
        monkeypatch.setenv("PATH", str(site.bin))
        monkeypatch.setattr("hpc.cluster.slurm_command.time.sleep", lambda seconds: None)
        for name in ("SLURM_JOB_ID", "SLURM_CLUSTER_NAME", "SLURM_CONF"):
            monkeypatch.delenv(name, raising=False)
        return site

    return make


@pytest.fixture
def fake_slurm(fake_site: Callable[..., FakeSlurm]) -> FakeSlurm:
    """A site with every command."""
    return fake_site()


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report without its ten figures, which take half of the time of a small evaluation.

    For tests of what is measured; other tests draw them of the same sets.
    """
    monkeypatch.setattr("sarhpc.evaluation.report_context._figures", lambda *_: [])
