"""A value that cannot be meant is refused when the draft is written, and with all others."""

from __future__ import annotations

from pathlib import Path

import pytest
from line_runs import tiny_run
from stage_verbs import say, seal

import sarhpc
from hpc.errors import ConfigError
from hpc.store.rundir import RunDir

WRONG = {
    "generate.gate.redraws=-1": "generate.gate.redraws=-1: give at least 0",
    "cluster.ranks=0": "cluster.ranks=0: give at least 1",
    "tile.tile_px=0": "tile.tile_px 0: must be >= 1",
    "train.lr_unet=-1": "train.lr_unet=-1.0: must be >= 0",
    "train.precision=fp99": "train.precision='fp99': use one of",
    "caption.captioner=cogvlm": "caption.captioner='cogvlm' is unknown: take one of",
    "caption.degenerate=drop": "caption.degenerate='drop': take reject or fallback",
    "generate.steps=0": "generate.steps is 0: must be >= 1",
}


def test_init_refuses_all_wrong_values_at_once_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = say(capsys, "init", tmp_path / "run", "--template", "demo", *WRONG)
    assert (code, out) == (2, "")
    assert [text for text in WRONG.values() if text not in err] == []
    assert not (tmp_path / "run").exists()


def test_a_draft_may_lack_what_is_still_to_come(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished = ["simulate=null", "generate.prompts_file=prompts.txt", "train.judge={}"]
    assert say(capsys, "init", tmp_path / "run", *unfinished)[0] == 0


def test_a_draft_is_not_changed_to_a_wrong_value(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run.config_text
    code, out, err = say(capsys, "init", run.root, "train.max_steps=-3", "caption.batch=0")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "sarhpc init: caption.batch=0: give at least 1",
        "train.max_steps=-3: give at least 1",
    ]
    # Of a stage that is not asked for, too.
    words = ["run", run.root, "--until", "simulate", "--executor", "local", "train.max_steps=-3"]
    for flags in ([], ["--dry-run"]):
        code, out, err = say(capsys, *words, *flags)
        assert (code, out, "train.max_steps=-3: give at least 1" in err) == (2, "", True)
    assert run.config_text == before
    assert say(capsys, "init", run.root, "train.max_steps=3")[0] == 0


def test_a_run_with_a_value_that_was_accepted_before_can_still_be_changed(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run(tmp_path / "run", model, ["caption.max_repeats=0"])
    seal(run, "simulate")
    seal(run, "caption")
    code, _, err = say(capsys, "init", run.root, "cluster.workers=-1")
    assert (code, err) == (2, "sarhpc init: cluster.workers=-1: give at least 1\n")
    assert say(capsys, "init", run.root, "cluster.workers=1")[0] == 0


def test_wrong_values_are_told_together_with_what_is_not_there(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["simulate=null", "archive.uri=/no/archive", "train.base_model=/no/model"]
    code, out, err = say(capsys, "run", run.root, "--executor", "local", *WRONG, *words)
    assert (code, out) == (2, "")
    texts = [
        *WRONG.values(),
        "archive.uri=/no/archive does not exist",
        "model /no/model is neither",
    ]
    assert [text for text in texts if text not in err] == []


def test_several_settings_of_one_stage_are_told_at_once(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train.zero_stage=9", "train.micro_batch=0", "train.on_nonfinite=wait",
             "train.keep_last=1", "caption.dtype=int8", "caption.missing_optical=drop"]  # fmt: skip
    code, _, err = say(capsys, "run", run.root, "--executor", "local", "--dry-run", *words)
    assert code == 2
    for word in words:
        assert word.partition("=")[0] in err


def test_python_refuses_what_the_command_line_refuses(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"generate\.gate\.redraws=-1: give at least 0"):
        sarhpc.Run.create(tmp_path / "run", "demo", settings={"generate.gate.redraws": -1})
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"tile\.min_valid=2\.0: give from 0 to 1"):
        sarhpc.cut_tiles(tmp_path, tmp_path / "cut", {"tile.min_valid": 2.0})
