"""`sarhpc ablation` on runs that were evaluated by the stage itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from evaluated_runs import run_before_evaluation
from line_runs import make_tiny_model

import sarhpc
from hpc.errors import ConfigError
from hpc.job.pipeline import run_stage
from hpc.store.rundir import RunDir
from sarhpc.cli import main
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config

pytestmark = pytest.mark.slow
QUICK = ["evaluate.orientation_steps=0", "evaluate.autoencoder_s=0", "evaluate.bootstrap=10",
         "cluster.workers=1"]  # fmt: skip


def say(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    try:
        code = main([str(word) for word in words])
    except SystemExit as stop:
        code = int(str(stop.code))
    return (code, *capsys.readouterr())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs on the same real tiles, one on others, and one that is not evaluated."""
    root = tmp_path_factory.mktemp("runs")
    model = make_tiny_model(root / "model")

    def made(name: str, *words: str) -> RunDir:
        return run_before_evaluation(root / name, model, [*QUICK, *words])

    full = made("full", "train.lr_unet=1e-5")
    run_stage(full, stage_named(load_run_config(full), "evaluate"))
    slow, other = made("slow", "train.lr_unet=1e-6"), made("other", "train.lr_unet=2e-5")
    for run in (slow, other):
        shutil.copytree(full.stage("evaluate"), run.stage("evaluate"))
    found = other.stage("evaluate") / "evaluation.json"
    document = json.loads(found.read_text())
    document["sets"]["real"]["mean_db"] += 1e-9
    found.write_text(json.dumps(document))
    bare = made("bare", "train.lr_unet=3e-5")
    scores = [{"event": "before", "BLEU-4": 0.1}, {"event": "after", "BLEU-4": 0.2, "step": 9}]
    bare.stage("caption-train").mkdir(parents=True)
    rows = "".join(json.dumps(row) + "\n" for row in scores)
    (bare.stage("caption-train") / "metrics.jsonl").write_text(rows)
    return [full.root, slow.root, other.root, bare.root]


def test_runs_are_tabulated_and_those_that_do_not_compare_are_named(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = say(capsys, "ablation", *runs, "--json")
    assert code == 0, err
    table = json.loads(out)
    assert table["settings"] == ["train.lr_unet"]
    rows = {row["name"]: row for row in table["rows"]}
    assert [row["group"] for row in table["rows"]] == [1, 1, 2, None]
    assert {rows[name]["cells"]["E5_lsd"]["rank"] for name in ("full", "slow")} == {1}
    assert rows["other"]["cells"]["E5_lsd"]["rank"] is None
    assert rows["bare"]["cells"] == {}
    assert rows["full"]["cost"]["unit"] == "CPU-h"
    assert rows["bare"]["captions"] == {"before": {"BLEU-4": 0.1}, "after": {"BLEU-4": 0.2}}
    assert any(note.startswith("other: not ranked against full") for note in table["notes"])
    assert f"bare: not evaluated yet: sarhpc evaluate {runs[3]}" in table["notes"]
    assert say(capsys, "ablation", *runs, "--out", tmp_path / "out")[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "ablation.csv", "ablation.html", "ablation.json", "ablation.md",
    ]  # fmt: skip
    assert json.loads((tmp_path / "out" / "ablation.json").read_text()) == table
    printed = say(capsys, "ablation", *runs)[1]
    assert printed == (tmp_path / "out" / "ablation.md").read_text()
    assert "1e-06" in printed


def test_fewer_than_two_runs_and_what_is_no_run_are_refused(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert say(capsys, "ablation", runs[0])[0] == 2
    code, _, err = say(capsys, "ablation", runs[0], runs[0])
    assert code == 2
    assert "named twice" in err
    assert say(capsys, "ablation", runs[0], tmp_path)[0] == 2
    assert say(capsys, "ablation", runs[0], tmp_path / "none")[0] == 2
    assert say(capsys, "ablation", *runs, "--out", runs[1] / "new")[0] == 2
    assert not (runs[1] / "new").exists()
    with pytest.raises(ConfigError, match="at least two"):
        sarhpc.ablation(runs[:1])
