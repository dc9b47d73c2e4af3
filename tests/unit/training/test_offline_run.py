"""An offline run of W&B holds what metrics.jsonl says, every step once, and sends nothing."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from offline_runs import history, records, run_file
from test_tensorboard import row

from hpc import publish
from hpc.errors import ConfigError
from sarhpc.training.config import TrainConfig
from sarhpc.training.machine import require_machine
from sarhpc.training.metrics.log import MetricsLog

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a training; the user is logged in and online, with a home of the test's own."""
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    found = tmp_path / "nightly" / "train"
    found.mkdir(parents=True)
    return found


def test_after_a_kill_every_step_stands_there_once_in_the_same_run(folder: Path) -> None:
    path = folder / "metrics.jsonl"
    first = MetricsLog(path, 0, wandb=True)
    for step in range(1, 6):
        first.write({**row(step, attempt=1), "trouble": "words are no number"})
    first.close()  # its last checkpoint is of step 3
    name = run_file(folder).name
    assert [(r["_step"], r["loss"]) for r in history(folder)] == [(s, s + 0.1) for s in range(1, 6)]

    second = MetricsLog(path, 3, wandb=True)
    for step in range(4, 7):
        second.write(row(step, attempt=2))
    second.close()
    found = history(folder)
    assert [r["_step"] for r in found] == [1, 2, 3, 4, 5, 6]
    assert [r["loss"] for r in found] == [1.1, 2.1, 3.1, 4.2, 5.2, 6.2]
    assert found[2]["_timestamp"] == 1003.0
    assert {"lr/unet", "grad_norm/unet", "grad_norm", "samples_per_s", "seconds/step"} <= {
        *found[0]
    }
    assert "trouble" not in found[0]
    assert run_file(folder).name == name, "a server takes both for one run"
    [said] = [record.run for record in records(run_file(folder)) if record.HasField("run")]
    assert (said.project, said.display_name) == ("sarhpc", "nightly")


def test_nothing_is_left_beside_the_run(folder: Path) -> None:
    environment = dict(os.environ)
    log = MetricsLog(folder / "metrics.jsonl", 0, wandb=True)
    log.write(row(1, attempt=1))
    log.close()
    assert dict(os.environ) == environment
    assert {path.name for path in folder.iterdir()} == {"metrics.jsonl", "wandb"}
    assert [path.name for path in (folder / "wandb").iterdir()] == [run_file(folder).parent.name]
    assert [path for path in folder.parents[1].rglob("*") if "wandb" in path.name] == [
        folder / "wandb",
        run_file(folder),
    ]
    _, alive = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=20)
    assert not [process for process in alive if "wandb" in " ".join(process.cmdline())]


def test_a_full_disk_is_told_and_loses_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "metrics.jsonl"
    whole = MetricsLog(path, 0, wandb=True)
    whole.write(row(1, attempt=1))
    whole.close()
    log = MetricsLog(path, 1, wandb=True)
    log.write(row(2, attempt=2))
    monkeypatch.setattr(publish, "_passages", {})
    monkeypatch.setenv("SARHPC_FAULT", "publish.directory_before_rename:1:enospc")
    with caplog.at_level(logging.INFO):
        log.close()
    [told] = caplog.messages
    assert "wandb was not written" in told
    assert [r["_step"] for r in history(folder)] == [1]
    assert len(path.read_text().splitlines()) == 2
    assert {found.name for found in folder.iterdir()} == {"metrics.jsonl", "wandb"}


def test_wandb_is_not_imported_unless_asked_and_its_absence_is_told_before_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = "import sys, sarhpc.training.trainer; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", words], check=False).returncode == 0
    require_machine(TrainConfig(wandb=True), torch.device("cpu"))
    monkeypatch.setattr("sarhpc.training.machine.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'sarhpc\[wandb\]'"):
        require_machine(TrainConfig(wandb=True), torch.device("cpu"))
