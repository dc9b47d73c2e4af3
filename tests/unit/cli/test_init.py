"""What `init` freezes of a configuration that was resolved, and of one from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.store.rundir import open_run
from sarhpc.cli import main
from sarhpc.stages.run_config import load_run_config


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    path = tmp_path / "given.yaml"
    path.write_text("archive: {uri: '${oc.env:SCRATCH}/scenes'}\n")
    path.chmod(0o600)
    return path


def test_the_frozen_configuration_says_what_was_resolved(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "run"
    assert main(["init", str(place), "--config", str(given), "tile.tile_px=256"]) == 0
    run = open_run(place)
    text = run.config_file.read_text()
    assert text.startswith('# archive.uri was "${oc.env:SCRATCH}/scenes"\n')
    assert f"uri: {tmp_path}/scenes" in text
    monkeypatch.setenv("SCRATCH", "/elsewhere")
    assert load_run_config(run).archive.uri == f"{tmp_path}/scenes"
    # A change that decides nothing keeps what is known of the other values.
    assert main(["init", str(place), "cluster.workers=3"]) == 0
    again = ["--config", str(given), "tile.tile_px=256", "cluster.workers=3", "cluster.ranks=2"]
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    assert main(["init", str(place), *again]) == 0
    assert run.config_file.read_text().count("# archive.uri was ") == 1
    assert load_run_config(run).cluster.workers == 3


def test_a_secret_of_the_environment_is_frozen_by_nobodys_file(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given.write_text("archive: {uri: '${oc.env:SECRET_TOKEN}'}\n")
    assert main(["init", str(tmp_path / "run"), "--config", str(given)]) == 2
    assert main(["init", str(tmp_path / "run"), "--config", str(given), "--cfg"]) == 2
    printed = "".join(capsys.readouterr())
    assert "archive.uri in" in printed
    assert "hunter2" not in printed
    assert not (tmp_path / "run").exists()


def test_a_run_of_somebody_else_that_asks_for_a_secret_is_read_as_it_stands(
    given: Path, tmp_path: Path
) -> None:
    place = tmp_path / "run"
    assert main(["init", str(place), "--config", str(given)]) == 0
    run = open_run(place)
    text = run.config_file.read_text()
    assert "on_nonfinite: stop" in text
    run.config_file.write_text(text.replace("nonfinite: stop", "nonfinite: ${oc.env:SECRET_TOKEN}"))
    assert load_run_config(run).train.on_nonfinite == "${oc.env:SECRET_TOKEN}"
