"""Configurations that ship are given by name, from any folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpc.store.rundir import open_run
from sarhpc.cli import main
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.templates import template_names


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", template_names())
def test_a_run_begins_with_a_template(name: str) -> None:
    """`--config configs/paper_sd15.yaml` worked in a checkout only."""
    assert main(["init", "run", "--template", name, "train.max_steps=7"]) == 0
    assert load_run_config(open_run(Path("run"))).train.max_steps == 7


def test_a_mistyped_template_is_told_its_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["init", "run", "--template", "paper_sd16"])
    assert stop.value.code == 2
    assert "there is paper_sd15" in capsys.readouterr().err
    assert not Path("run").exists()


def test_a_missing_file_is_told_how_templates_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["init", "run", "--config", "configs/demo.yaml"]) == 2
    assert "--template NAME" in capsys.readouterr().err


def test_a_mistyped_profile_is_told_where_the_shipped_ones_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["run", "run", "--template", "demo", "--profile", "a10", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert "known: a100" in said
    assert Path(said.partition("Copy ")[2].split()[0]).is_file()


def test_pages_that_a_configuration_names_are_there() -> None:
    root = Path(__file__).resolve().parents[3]
    for path in sorted((root / "sarhpc" / "configs").rglob("*.yaml")):
        for page in re.findall(r"docs/[\w/.-]+\.md", path.read_text()):
            assert (root / page).is_file(), f"{path} names {page}"
