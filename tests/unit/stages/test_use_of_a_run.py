"""E12 of a run: networks are shards of the stage, those that are missing are trained again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from evaluated_runs import run_before_evaluation
from line_runs import make_tiny_model

from hpc.errors import DataError, IncompleteError
from hpc.job.pipeline import JobContext, run_stage
from hpc.store.plan import read_plan
from hpc.store.rundir import RunDir
from sarhpc.shards.reader import read_shard
from sarhpc.shards.sample import encode_json
from sarhpc.shards.writer import write_shard
from sarhpc.stages.evaluate import evaluate_elsewhere
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.work.use import fit_one

pytestmark = pytest.mark.slow
WORDS = [
    "evaluate.use.task=classification", "evaluate.use.steps=4", "evaluate.use.seeds=1",
    "evaluate.use.shares=[1.0]", "evaluate.autoencoder_s=0", "evaluate.orientation_steps=0",
]  # fmt: skip


def with_classes(run: RunDir) -> None:
    """Give real tiles a truth, and generated ones the class that they were asked to show."""
    for path in sorted((run.root / "data").rglob("*.tar")):
        generated = "synthetic" in path.parts
        samples = []
        for number, sample in enumerate(read_shard(path)):
            name = ("water", "forest")[(number if generated else number // 12) % 2]
            truth = {"truth": {"class_fractions": {name: 1.0}}}
            facts = {"labels": {"class": name}} if generated else truth
            samples.append(sample.with_members(meta__json=encode_json({**sample.meta, **facts})))
        write_shard(path, samples)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(tmp_path: Path, model: Path) -> RunDir:
    made = run_before_evaluation(tmp_path / "run", model, WORDS)
    with_classes(made)
    return made


def finish(run: RunDir) -> None:
    run_stage(
        run, stage_named(load_run_config(run), "evaluate"), context=JobContext(sequential=True)
    )


def test_networks_are_shards_and_only_those_that_failed_are_trained_again(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def _fit(inputs: Mapping[str, Any], target: Path, of: RunDir | None) -> int:
        trained.append(inputs["use"]["setting"])
        if trained == ["mixed", "real"]:
            raise DataError("a file cannot be read")
        return fit_one(inputs, target, of)

    monkeypatch.setattr("sarhpc.stages.evaluate.fit_one", _fit)
    with pytest.raises(IncompleteError, match="a file cannot be read"):
        finish(run)
    plan = read_plan(run.plan_file("evaluate"))
    asked = [shard.inputs["use"]["setting"] for shard in plan.shards if "use" in shard.inputs]
    assert asked == trained == [
        "mixed", "real", "synthetic", "real, labels shuffled", "synthetic, labels shuffled",
    ]  # fmt: skip
    finish(run)
    assert trained[5:] == ["real"]
    found = json.loads((run.stage("evaluate") / "evaluation.json").read_text())
    assert found["use"]["classes"] == ["forest", "water"]
    assert found["use"]["images"] == {"train": 32, "test": 16, "synthetic": 12}
    assert 'id="use"' in (run.root / "report.html").read_text()
    assert "use_ratio" in {gate["name"] for gate in found["gates"]}
    page = evaluate_elsewhere(run, ["caption", "generate"], tmp_path / "again")
    again = json.loads((tmp_path / "again" / "evaluation.json").read_text())
    assert again["use"] == found["use"]
    assert page.is_file()


def test_a_run_whose_images_name_no_class_is_evaluated_without_it(
    tmp_path: Path, model: Path
) -> None:
    run = run_before_evaluation(tmp_path / "run", model, WORDS)
    finish(run)
    found = json.loads((run.stage("evaluate") / "evaluation.json").read_text())
    assert "names its class" in found["use"]["reason"]
    assert found["sets"]["this run"]["tiles"] == 12
    assert "Not measured: " in (run.root / "report.html").read_text()
