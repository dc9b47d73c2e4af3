"""`sarhpc contract`, and what a dry run says of models with and without one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from line_runs import seal_export, tiny_run
from model_folders import model_layout

from hpc.publish import publish_json, publish_text
from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now
from hpc.store.tree import digest_tree
from sarhpc.cli import main
from sarhpc.shards.contract import CONTRACT_FILE, PixelContract, read_contract, sidecar
from sarhpc.shards.images import encode_gray8
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.writer import write_shard
from sarhpc.stages.inputs.contracts import (
    contract_of_corpus,
    contract_of_training,
    other_pixels,
    pixel_facts,
)
from sarhpc.stages.run_config import load_run_config

META: dict[str, Any] = {
    "scene_id": "a", "datetime": None, "band": "X", "polarization": "HH", "pixel_m": 0.5,
    "incidence_deg": 40.0, "range_direction": "+col", "look_side": None, "calibration": "sigma0",
    "normalisation": {"mode": "db", "low": 0.01, "top": 10.0, "mu": 0.1, "sigma": 0.1},
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_layout(tmp_path / "model")


def write_tiles(path: Path, shard: int = 0, **changes: Any) -> Path:
    samples = [
        Sample(
            sample_key(shard, index),
            {
                "sar.png": encode_gray8(np.full((8, 8), 9 + index, np.uint8)),
                "txt": b"a lake",
                "meta.json": encode_json({**META, **changes}),
            },
        )
        for index in range(2)
    ]
    write_shard(path, samples)
    return path


def seal_tiles(run: RunDir, splits: Mapping[str, Mapping[str, Any]]) -> None:
    """Stand a captioned shard of each split in the run."""
    plan = make_plan("caption", [{"n": n} for n, _ in enumerate(splits)])
    publish_plan(plan, run.plan_file("caption"))
    for task, (split, changes) in zip(plan.shards, splits.items(), strict=True):
        path = write_tiles(run.root / f"{task.id}.tar", task.number, **changes)
        run.ledger("caption").publish(
            Record(task.id, plan.id, str(path), 2, path.stat().st_size, "", 0, "h", now(), now(),
                   1.0, {}, {"split": split})
        )  # fmt: skip
    run.ledger("caption").seal(plan)


def say(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_model_without_a_contract_gets_one_beside_its_folder(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = say(capsys, "contract", model)
    assert (code, f"sarhpc contract {model} --tiles" in err) == (1, True)
    write_tiles(tmp_path / "tiles" / "train" / "000000.tar")
    digest = digest_tree(model)
    code, out, _ = say(capsys, "contract", model, "--tiles", tmp_path / "tiles")
    assert code == 0
    assert digest_tree(model) == digest, "the folder, whose digest is recorded, has changed"
    code, again, _ = say(capsys, "contract", model)
    assert code == 0
    assert out == f"written: {sidecar(model)}\n{again}"
    assert "pixel            0.5 m\n" in again
    assert "incidence        40 degrees\n" in again
    assert "licence          unknown\n" in again
    code, _, err = say(capsys, "contract", model, "--tiles", tmp_path / "tiles")
    assert (code, "has a contract" in err) == (1, True)


def test_what_is_no_model_no_tiles_or_damaged_is_refused(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no model_index.json" in say(capsys, "contract", tmp_path)[2]
    (tmp_path / "empty").mkdir()
    code, _, err = say(capsys, "contract", model, "--tiles", tmp_path / "empty")
    assert (code, "no tiles" in err) == (1, True)
    assert read_contract(model) is None
    publish_json(model / CONTRACT_FILE, {"schema": "sarhpc.contract/2"})
    code, _, err = say(capsys, "contract", model)
    assert (code, "sarhpc.contract/2" in err) == (1, True)


@pytest.mark.parametrize("known", [True, False])
def test_a_dry_run_tells_bytes_and_models_without_a_contract(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], known: bool
) -> None:
    words = ["generate.prompts=[a lake]", "generate.images=4"]
    run = tiny_run(tmp_path / "run", model, words)
    if known:
        publish_json(model / CONTRACT_FILE, PixelContract(tiles=1).to_json())
    seal_export(run, model)
    code, out, _ = say(capsys, "generate", run.root, "--dry-run")
    assert code == 0
    # 32 x 32 px: 1.15 bytes a pixel of the picture, 2 of the master.
    assert "an image: about 3.2 kB, 1.2 of them the 8-bit picture and 2.0 the 16-bit master" in out
    assert ("warning: " in out) is not known
    assert (f"sarhpc contract {model} --tiles" in out) is not known
    assert not run.plan_file("generate").exists()


@pytest.mark.parametrize("known", [True, False])
def test_a_submission_warns_of_models_without_a_contract(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], known: bool
) -> None:
    words = ["generate.prompts=[a lake]", "generate.images=4", f"compare.models={{tiny: {model}}}"]
    run = tiny_run(tmp_path / "run", model, words)
    seal_export(run, model)
    if known:
        publish_json(sidecar(model), PixelContract(tiles=1).to_json())
    reported = f"warning: {model} has no contract"
    # The stop of an operator comes after the warning, and before any process.
    run.stop_file.touch()
    code, _, err = say(capsys, "generate", run.root)
    assert (code, reported in err) == (2, not known)
    code, out, _ = say(capsys, "compare", run.root, "--dry-run")
    assert (code, reported in out) == (0, not known)
    sidecar(model).write_text("{")
    code, _, err = say(capsys, "generate", run.root)
    assert (code, str(sidecar(model)) in err) == (1, True)
    assert not run.plan_file("generate").exists()


def test_a_contract_of_another_spacing_than_demanded_is_refused_by_the_dry_run(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run(tmp_path / "run", model, ["generate.prompts=[a lake]", "generate.pixel_m=0.35"])
    other = tiny_run(tmp_path / "other", model, ["generate.prompts=[a]", "generate.pixel_m=0.8"])
    contract = {**PixelContract(tiles=1).to_json(), "pixel_m": [0.5, 0.5]}
    publish_json(model / CONTRACT_FILE, contract)
    for each in (run, other):
        seal_export(each, model)
    # 0.35 is the default, which stands in every configuration that was frozen before contracts.
    assert say(capsys, "generate", run.root, "--dry-run")[0] == 0
    code, _, err = say(capsys, "generate", other.root, "--dry-run")
    assert (code, "generate.pixel_m=0.8" in err, "0.5 m" in err) == (2, True, True)
    publish_json(model / CONTRACT_FILE, {**contract, "tiles": "many"})
    code, _, err = say(capsys, "generate", run.root, "--dry-run")
    assert (code, "tiles is 'many'" in err, CONTRACT_FILE in err) == (2, True, True)


def test_a_dry_run_of_a_generation_planned_before_contracts_says_so(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run(tmp_path / "run", model, ["generate.prompts=[a lake]", "generate.images=4"])
    seal_export(run, model)
    inputs = {"batch": 2, "threads": 1, "prompts": ["a"], "images": [[0, 1]], "model": str(model)}
    publish_plan(make_plan("generate", [inputs]), run.plan_file("generate"))
    assert "planned before contracts" in say(capsys, "generate", run.root, "--dry-run")[1]


def test_the_contract_is_that_of_the_tiles_that_are_trained_on(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tiny_run(tmp_path / "run", model)
    seal_tiles(run, {"train": {}, "val": {"pixel_m": 2.5}})
    config = load_run_config(run)
    contract = contract_of_training(run, config)
    assert contract is not None
    assert (contract.pixel_m, contract.tiles) == ((0.5, 0.5), 2)
    config.train.image_member = "optic.png"
    assert contract_of_training(run, config) is None, "optical pictures show no radar"
    config.train.image_member = "sar.png"
    (run.root / "000000.tar").unlink()
    assert contract_of_training(run, config) is None
    assert "without a contract" in caplog.text


@pytest.mark.parametrize(
    ("real", "words"),
    [({}, None), ({"pixel_m": 2.5}, "pixel_m: 0.5 against 2.5"), ({"pixel_m": None}, None)],
)
def test_the_report_names_sets_whose_pixels_mean_something_else(
    tmp_path: Path, model: Path, real: dict[str, Any], words: str | None
) -> None:
    run = tiny_run(tmp_path / "run", model)
    seal_tiles(run, {"train": {}, "val": real})
    config = load_run_config(run)
    contract = contract_of_training(run, config)
    assert contract is not None
    planned = [{"contract": json.loads(json.dumps(contract.to_json()))}]
    publish_plan(make_plan("generate", planned), run.plan_file("generate"))
    assert "a pixel means" not in pixel_facts(contract_of_corpus(run))
    found = other_pixels(run, config)
    assert len(found) == (words is not None)
    assert words is None or words in found[0]


def test_a_corpus_from_before_contracts_is_reported_as_of_unknown_pixels(
    tmp_path: Path, model: Path
) -> None:
    run = tiny_run(tmp_path / "run", model)
    seal_tiles(run, {"train": {}, "val": {}})
    publish_plan(make_plan("generate", [{"model": "m"}]), run.plan_file("generate"))
    assert other_pixels(run, load_run_config(run)) == []
    assert list(pixel_facts(contract_of_corpus(run))) == ["a pixel means"]


def test_inspection_names_the_outliers_of_the_window(tmp_path: Path, model: Path) -> None:
    from sarhpc.cli.inspection import _window_warnings

    run = tiny_run(tmp_path / "run", model)
    assert list(_window_warnings(run)) == []
    file = run.stage("tile") / "db_window.json"
    publish_json(file, {"outliers": {"hot": 0.97}})
    [line] = _window_warnings(run)
    assert "scene hot" in line
    assert "97% of its power" in line
    publish_text(file, "{")
    [line] = _window_warnings(run)
    assert "cannot be read" in line


@pytest.mark.slow
def test_a_dry_run_of_tiling_tells_the_window_of_the_archive(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tile.normalisation=db", "tile.db_scope=archive", "tile.db_window=[-30, 12.5]"]
    run = tiny_run(tmp_path / "run", model, [*words, "simulate.scenes=1"])
    assert main(["simulate", str(run.root), "--executor", "debug"]) == 0
    code, out, _ = say(capsys, "tile", run.root, "--dry-run")
    assert code == 0
    assert "one dB window for all scenes: -30.0 to 12.5 dB" in out
    assert not run.stage("tile").exists()


def test_a_run_is_no_model_and_the_message_names_its_exported_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = tmp_path / "run" / "export" / "model"
    publish_text(exported / "model_index.json", "{}")
    code, _, err = say(capsys, "contract", tmp_path / "run")
    assert (code, f"give {exported}" in err) == (2, True)
