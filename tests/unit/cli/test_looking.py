"""A look at a run, or a command that is refused, creates, freezes and changes nothing (P12)."""

from __future__ import annotations

from pathlib import Path

import pytest
from line_runs import TINY, tiny_run
from model_folders import model_layout
from other_user import contents

from hpc.job.elements import run_element
from sarhpc.cli import main
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config

PROFILE = """\
executor: slurm
resources: {cpus_per_task: 2, mem_gb: 1, time_min: 20}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    model_layout(tmp_path / "base")
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace("train:\n", f"train:\n  base_model: {tmp_path / 'base'}\n"))
    (tmp_path / "mini.yaml").write_text(PROFILE)
    return path


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--dry-run --executor local", 0, "simulate: 4 shards, 4 to make"),
        ("--cfg", 0, "simulate:"),
        ("--print-sbatch --profile mini.yaml", 0, "#SBATCH --job-name=new-simulate"),
        ("--executor local train.global_batch=3", 2, "global_batch"),
        ("--executor local --print-sbatch", 2, "needs a Slurm profile"),
        ("--executor local --from train", 5, "train needs caption"),
        ("--profile mini.yaml --from train", 5, "train needs caption"),
        ("--profile none-of-that-name", 2, "no profile"),
    ],
)
def test_a_new_run_is_made_only_by_what_begins_it(
    words: str,
    code: int,
    said: str,
    config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    ended = main(["run", "folder/new", "--config", str(config), *words.split()])
    out, err = capsys.readouterr()
    assert ended == code, err
    assert said in (err if code else out)
    assert contents(tmp_path) == before
    assert not (tmp_path / "folder").exists()


@pytest.mark.slow
def test_a_look_at_a_run_that_has_begun_changes_nothing(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run(tmp_path / "run", tmp_path / "base", ["simulate.scenes=1"])
    simulate = stage_named(load_run_config(run), "simulate")
    run_element(run, simulate, 0, lambda plan: [shard.id for shard in plan.shards])
    before = contents(run.root)
    profile = str(config.with_name("mini.yaml"))
    looks = (
        ["--dry-run", "cluster.workers=7"],
        ["--profile", profile, "--print-sbatch"],
        ["--cfg"],
    )
    for look in looks:
        assert main(["run", str(run.root), *look]) == 0
        assert contents(run.root) == before, look
    out, err = capsys.readouterr()
    assert "tile: " in out, "it was planned, which comes with the file of the split"
    assert f"{run.root}/code/" in out
    assert "would be changed for this run: cluster.workers: 2 -> 7" in err
    assert load_run_config(run).cluster.workers == 2
