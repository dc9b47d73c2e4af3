"""What `clip-train` refuses before it begins, and how far it says it is."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from line_runs import seal_captions, tiny_run

from hpc.config import changes_since, loads, to_dict
from hpc.errors import ConfigError, DataError
from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now
from sarhpc.captioning.contrastive.config import ClipTrainConfig
from sarhpc.cli import main
from sarhpc.shards.contract import PixelContract
from sarhpc.stages.clip_train import (
    CLIP_TRAIN,
    check_inputs,
    clip_training_progress,
    plan_clip_training,
)
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.paths import model_folder
from sarhpc.stages.registry import line_of_stages, stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.settings import require_present
from sarhpc.stages.train import TRAIN

NEW = ["clip_train={base_model: null}"]
JUDGED = ["clip_train={base_model: null, judge: {}}"]


def clip_run(root: Path, words: list[str]) -> RunDir:
    return tiny_run(root / "run", root / "model", words)


def captioned(run: RunDir, *splits: str) -> RunDir:
    """The run with a finished stage `caption` of twelve samples for each of the splits."""
    plan = make_plan("caption", [{} for _ in splits])
    publish_plan(plan, run.plan_file("caption"))
    for number, split in enumerate(splits):
        run.ledger("caption").publish(
            Record(f"{number:06d}", plan.id, "samples", 12, 1, "0" * 64, 0, "here", now(), now(),
                   0.0, {}, {"split": split})
        )  # fmt: skip
    run.ledger("caption").seal(plan)
    return run


def test_it_is_planned_after_captioning_where_it_is_asked_for(tmp_path: Path) -> None:
    names = [stage.name for stage in line_of_stages(load_run_config(clip_run(tmp_path, NEW)))]
    assert names[names.index("caption") + 1] == "clip-train"
    without = loads(RunConfig, "{}", ["simulate={}"])
    assert "clip-train" not in [stage.name for stage in line_of_stages(without)]


def test_runs_begun_before_the_stage_keep_their_fingerprints() -> None:
    config = loads(RunConfig, "{}", ["simulate={}"])
    before = {name: value for name, value in to_dict(config).items() if name != "clip_train"}
    assert changes_since(before, config) == []
    asked = loads(RunConfig, "{}", ["simulate={}", *NEW])
    assert TRAIN.fingerprint(config) == TRAIN.fingerprint(asked)
    assert CLIP_TRAIN.fingerprint(config) != CLIP_TRAIN.fingerprint(asked)


@pytest.mark.parametrize(
    ("words", "splits", "named"),
    [
        (NEW, ("val", "test"), "clip-train needs captioned tiles of split train; there are"),
        (JUDGED, ("train", "test"), "clip_train.judge needs tiles of split val; there are"),
    ],
)
def test_without_tiles_to_learn_from_or_to_judge_by_it_is_not_planned(
    tmp_path: Path, words: list[str], splits: tuple[str, ...], named: str
) -> None:
    run = captioned(clip_run(tmp_path, words), *splits)
    with pytest.raises(DataError) as caught:
        plan_clip_training(run)
    assert named in str(caught.value)
    assert "tile.split.fractions" in str(caught.value)


def test_the_plan_names_the_tiles(tmp_path: Path) -> None:
    run = captioned(clip_run(tmp_path, JUDGED), "train", "val")
    [task] = plan_clip_training(run).shards
    assert task.inputs["samples"] == 12


def test_a_model_that_is_no_clip_is_refused_before_anything_is_submitted(tmp_path: Path) -> None:
    words = ["clip_train={base_model: embedded:blip}"]
    run = clip_run(tmp_path, words)
    with pytest.raises(ConfigError, match=r"clip_train\.base_model=embedded:blip .*'blip' and no"):
        check_inputs(run, load_run_config(run))
    folder = tmp_path / "empty"
    folder.mkdir()
    run = tiny_run(tmp_path / "other", tmp_path, [f"clip_train={{base_model: {folder}}}"])
    with pytest.raises(ConfigError, match=r"base_model=.* has no config\.json, \*\.safe"):
        check_inputs(run, load_run_config(run))
    shutil.copytree(model_folder("embedded:clip"), folder, dirs_exist_ok=True)
    check_inputs(run, load_run_config(run))
    (folder / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        check_inputs(run, load_run_config(run))


def test_a_model_that_is_missing_is_named_with_its_key(tmp_path: Path) -> None:
    run = clip_run(tmp_path, ["clip_train={base_model: /no/clip}"])
    with pytest.raises(ConfigError, match=r"clip_train\.base_model: model /no/clip is neither"):
        require_present(run, load_run_config(run), ["clip-train"])
    nameless = clip_run(tmp_path / "other", ["clip_train={base_model: 'embedded:no'}"])
    with pytest.raises(ConfigError, match=r"clip_train\.base_model: no embedded model"):
        require_present(nameless, load_run_config(nameless), ["clip-train"])


def test_a_run_without_the_stage_says_how_to_have_it(tmp_path: Path) -> None:
    run = clip_run(tmp_path, [])
    with pytest.raises(ConfigError, match=r"no stage 'clip-train'; .* sets clip_train .*init RUN"):
        stage_named(load_run_config(run), "clip-train")


def test_tiles_are_flipped_only_where_azimuth_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["clip_train={base_model: null, azimuth_flip: true}"]
    run = captioned(clip_run(tmp_path, words), "train")
    unknown = PixelContract()
    monkeypatch.setattr("sarhpc.shards.tile_contract.contract_of_shards", lambda _: unknown)
    with pytest.raises(ConfigError, match=r"clip_train\.azimuth_flip .*imported\.range_direction"):
        plan_clip_training(run)
    known = dataclasses.replace(unknown, range_direction="+col")
    monkeypatch.setattr("sarhpc.shards.tile_contract.contract_of_shards", lambda _: known)
    assert plan_clip_training(run).shards


def test_a_training_on_the_cpu_needs_no_gpu(tmp_path: Path) -> None:
    on_cpu = load_run_config(clip_run(tmp_path, [*NEW, "clip_train.device=cpu"]))
    assert not CLIP_TRAIN.uses_gpus(on_cpu)
    assert CLIP_TRAIN.uses_gpus(dataclasses.replace(on_cpu, clip_train=ClipTrainConfig()))


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("clip_train.text=TALL", "clip_train.text='TALL': use one of txt, SHORT, MID, LONG"),
        ("clip_train.batch=7", "clip_train.batch=7 does not divide among 2 ranks"),
        ("clip_train.precision=bf16", "clip_train.zero_stage=0 with precision=bf16"),
        ("clip_train.judge={among: 1}", "clip_train.judge.among=1: give at least 2"),
        ("clip_train.judge={choose: bst}", "clip_train.judge.choose='bst'"),
        ("clip_train.new.patch_px=5", "clip_train.new.image_px=64 is no multiple"),
        ("clip_train.new.vocabulary=100", "clip_train.new.vocabulary=100: give at least 514"),
        ("clip_train.keep_last=1", "clip_train.keep_last=1"),
    ],
)
def test_a_dry_run_names_what_cannot_be_meant(
    tmp_path: Path, word: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = clip_run(tmp_path, [*NEW, word])
    assert main(["clip-train", str(run.root), "--executor", "local", "--dry-run"]) == 2
    assert named in capsys.readouterr().err
    assert not run.stage("clip-train").exists()


def test_progress_is_that_of_the_newest_row(tmp_path: Path) -> None:
    run = clip_run(tmp_path, [*NEW, "clip_train.steps=20"])
    seal_captions(run)
    assert clip_training_progress(run) is None
    folder = run.stage("clip-train")
    folder.mkdir()
    rows = [
        {"step": 0, "event": "start", "time": 1.0},
        {"step": 4, "loss": 2.5, "samples_per_s": 80.0, "step_s": 0.5, "time": 2.0},
        {"step": 5, "val_r1": 0.5, "val_chance": 0.1, "val_score": 40.0, "time": 3.0},
    ]
    notes = []
    for row in rows:
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        progress = clip_training_progress(run)
        assert progress is not None
        assert progress.goal == 20
        notes.append(progress.note)
    assert notes == ["start", "loss 2.5, 80 tiles/s", "R@1 0.5"]
