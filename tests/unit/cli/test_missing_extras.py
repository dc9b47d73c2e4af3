"""Without the packages of an extra, one line names it before anything begins."""

from __future__ import annotations

import importlib.util
import json
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from sarhpc.cli import main
from sarhpc.extras import EXTRA_OF, is_installed, missing_extra


@pytest.fixture
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without extras, as whoever asks what is installed sees it."""
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in EXTRA_OF else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


@pytest.mark.usefixtures("_plain")
def test_a_run_is_refused_before_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", str(tmp_path / "run"), "--template", "demo"]
    for flags in ([], ["--dry-run"]):
        assert main([*words, *flags]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert "stage train needs submitit" in line
        assert "deepspeed" in line
        assert line.endswith("pip install 'sarhpc[train]'")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("_plain")
def test_a_plain_installation_is_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`doctor` failed for the lack of torch, and advised what no longer installs it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    main(["doctor", "--json", "--quick"])
    found = {item["check"]: item for item in json.loads(capsys.readouterr().out)}
    assert found["packages"]["state"] == "ok"
    assert "torch" not in found["packages"]["says"]
    assert found["extras"]["state"] == "warn"
    assert "pip install 'sarhpc[train]'" in str(found["extras"])


def test_this_environment_has_what_the_tests_need() -> None:
    assert is_installed("train")


def test_a_failed_import_is_told_by_its_extra() -> None:
    lacking = missing_extra(ModuleNotFoundError(name="tensorboard.compat"))
    assert str(lacking) == "tensorboard is not installed: pip install 'sarhpc[train]'"
    assert missing_extra(ModuleNotFoundError(name="numpy")) is None
