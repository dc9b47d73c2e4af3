"""A configuration is a draft until the first job or record of its run, and frozen from then on."""

from __future__ import annotations

from pathlib import Path

import pytest
from line_runs import TINY
from model_folders import model_layout
from other_user import contents
from stage_verbs import say

from hpc.config import fingerprint
from hpc.errors import FingerprintMismatchError
from hpc.job.elements import run_element
from hpc.store.rundir import PreviewedRun, RunDir, freeze, open_run
from sarhpc.cli import main
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config

pytestmark = pytest.mark.slow


@pytest.fixture
def draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    model_layout(tmp_path / "base")
    path = tmp_path / "tiny.yaml"
    text = TINY.replace("train:\n", f"train:\n  base_model: {tmp_path / 'base'}\n")
    path.write_text(text + "data: '${oc.env:SCRATCH}/data'\n")
    path.chmod(0o600)
    assert main(["init", str(tmp_path / "run"), "--config", str(path), "tile.max_tiles=9"]) == 0
    return open_run(tmp_path / "run")


def test_init_says_how_a_draft_is_changed_and_that_works(
    draft: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said, _ = say(capsys, "init", draft.root)
    assert f"change it: sarhpc init {draft.root} key=value" in said
    code, out, _ = say(capsys, "init", draft.root, "train.max_steps=9", "data=here")
    assert code == 0
    assert "changed for this run: train.max_steps: 4 -> 9" in out
    config = load_run_config(draft)
    assert (config.train.max_steps, config.data, config.tile.max_tiles) == (9, "here", 9)
    assert draft.info["fingerprint"] == fingerprint(config)
    words = (draft.root / "overrides.txt").read_text().split()
    assert words == ["tile.max_tiles=9", "train.max_steps=9", "data=here"]
    assert "# data was" not in draft.config_text, "it was resolved from the environment before"


def test_a_look_at_a_draft_with_other_values_and_a_refused_start_leave_it(
    draft: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(draft.root)
    other = ["run", str(draft.root), "--executor", "local", "generate.images=8"]
    for words, code in (
        (["--dry-run"], 0),
        (["--dry-run", "generate.scheduler=foo"], 2),
        (["generate.scheduler=foo"], 2),
        (["--from", "train"], 5),
        (["--profile", "none-of-that-name"], 2),
    ):
        wanted = [word for word in other if "--profile" not in words or word not in other[2:4]]
        assert main([*wanted, *words]) == code, capsys.readouterr().err
        assert contents(draft.root) == before, words


def test_the_first_record_freezes_a_configuration(
    draft: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(draft.root), "simulate.scenes=1"]) == 0
    simulate = stage_named(load_run_config(draft), "simulate")
    run_element(draft, simulate, 0, lambda plan: [shard.id for shard in plan.shards])
    code, _, err = say(capsys, "run", draft.root, "train.max_steps=9", "--executor", "local")
    assert code == 2
    assert "train.max_steps: 4 -> 9" in err
    code, out, _ = say(capsys, "init", draft.root)
    assert (code, out.splitlines()[0].endswith(draft.info["fingerprint"])) == (0, True)


def test_a_draft_that_begins_while_it_is_changed_is_left(draft: RunDir) -> None:
    change = PreviewedRun(draft.root, "", {**draft.info, "fingerprint": "f" * 16})
    (draft.root / "submissions").mkdir()
    (draft.root / "submissions" / "001.json").write_text("{}")
    before = contents(draft.root)
    with pytest.raises(FingerprintMismatchError, match="began meanwhile"):
        freeze(change)
    assert contents(draft.root) == before


def test_a_start_that_slurm_refused_freezes_nothing(draft: RunDir) -> None:
    for name in ("code", "submit", ".trash"):
        (draft.root / name).mkdir()
        (draft.root / name / "file").write_text("left")
    assert main(["init", str(draft.root), "train.max_steps=9"]) == 0
    assert load_run_config(draft).train.max_steps == 9


def test_a_draft_may_be_edited_by_hand_until_it_begins(
    draft: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    text = draft.config_text
    draft.config_file.write_text(text.replace("max_steps: 4", "max_steps: 9"))
    assert load_run_config(draft).train.max_steps == 9
    assert say(capsys, "run", draft.root, "--executor", "local", "--dry-run")[0] == 0
    assert draft.info["config"]["train"]["max_steps"] == 4, "a look writes nothing"
    assert main(["init", str(draft.root), "generate.images=8"]) == 0
    config = load_run_config(draft)
    assert (config.train.max_steps, config.generate and config.generate.images) == (9, 8)
    draft.config_file.write_text(draft.config_text.replace("max_steps: 9", "max_steps: 7"))
    assert main(["init", str(draft.root), "cluster.workers=1"]) == 0
    assert draft.info["fingerprint"] == fingerprint(load_run_config(draft))
    simulate = stage_named(load_run_config(draft), "simulate")
    run_element(draft, simulate, 0, lambda plan: [shard.id for shard in plan.shards])
    assert load_run_config(draft).train.max_steps == 7
    draft.config_file.write_text(draft.config_text.replace("max_steps: 7", "max_steps: 5"))
    with pytest.raises(FingerprintMismatchError, match=r"train\.max_steps: 7 -> 5"):
        load_run_config(draft)


def test_a_kill_between_the_two_files_of_a_change_leaves_a_draft(
    draft: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr("hpc.store.rundir.publish_json", die)
        assert main(["init", str(draft.root), "train.max_steps=9"]) == 130
    assert load_run_config(draft).train.max_steps == 9
    assert main(["init", str(draft.root), "tile.max_tiles=8"]) == 0
    config = load_run_config(draft)
    assert (config.train.max_steps, config.tile.max_tiles) == (9, 8)
    assert draft.info["fingerprint"] == fingerprint(config)
