from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from stage_verbs import say, seal

from hpc.errors import DataError
from hpc.job.pipeline import Stage, Work
from hpc.store.ledger import Record
from hpc.store.plan import Plan, make_plan, publish_plan
from hpc.store.rundir import RunDir, now, open_run
from sarhpc.cli import main
from sarhpc.stages import registry
from sarhpc.stages.config import RunConfig
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.spec import StageSpec


def test_init_freezes_and_finds_the_same_run_again(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "new"
    words = ("init", root, "--config", config, "train.max_steps=7")
    code, out, _ = say(capsys, *words)
    assert code == 0
    assert f"next: sarhpc run {root}" in out
    assert load_run_config(open_run(root)).train.max_steps == 7
    assert (root / "overrides.txt").read_text() == "train.max_steps=7\n"
    assert say(capsys, *words)[0] == 0


def test_other_values_for_a_run_that_has_begun_are_refused_and_shown(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "new"
    assert main(["init", str(root), "--config", str(config)]) == 0
    publish_plan(make_plan("simulate", [{}]), open_run(root).plan_file("simulate"))
    frozen = (root / "config.yaml").read_bytes()
    code, _, err = say(capsys, "run", root, "train.max_steps=9")
    assert code == 2
    assert "train.max_steps: 4 -> 9" in err
    assert "simulate" not in err, "only what was asked for differs"
    assert (root / "config.yaml").read_bytes() == frozen


def test_worker_counts_of_a_standing_run_may_change(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "new"
    assert main(["init", str(root), "--config", str(config)]) == 0
    code, out, _ = say(capsys, "init", root, "cluster.workers=5")
    assert code == 0
    assert "cluster.workers: 2 -> 5" in out
    assert load_run_config(open_run(root)).cluster.workers == 5


def test_a_frozen_configuration_edited_by_hand_is_refused_and_shown(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "new"
    assert main(["init", str(root), "--config", str(config)]) == 0
    seal(open_run(root), "simulate")
    text = (root / "config.yaml").read_text()
    (root / "config.yaml").write_text(text.replace("max_steps: 4", "max_steps: 40"))
    code, _, err = say(capsys, "status", root)
    assert code == 2
    assert "train.max_steps: 4 -> 40" in err
    (root / "config.yaml").write_text(text.replace("workers: 2", "workers: 3"))
    assert say(capsys, "status", root)[0] == 0


def test_cfg_prints_and_does_nothing_else(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = say(capsys, "run", run.root, "--cfg")
    assert code == 0
    assert "max_steps: 4" in out
    assert not (run.root / "logs").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n- b\n", "keys and values"),
        ("train: [1\n", "line 2, column 1"),
        ("trian: {}\n", "did you mean train"),
        ("train: {max_steps: many}\n", "train.max_steps"),
        ("42\n", "keys and values"),
        ("compare: {models: [1]}\n", "where keys and values are expected, or the reverse"),
    ],
)
def test_bad_yaml_exits_2_and_says_where(
    tmp_path: Path, text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(text)
    code, _, err = say(capsys, "init", tmp_path / "new", "--config", bad)
    assert code == 2
    assert says in err
    assert str(bad) in err
    assert not (tmp_path / "new").exists()


def test_a_place_that_cannot_be_written_is_one_line(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = say(capsys, "init", tmp_path / "file" / "run", "--config", config)
    assert code == 1
    assert err.count("\n") == 1
    assert str(tmp_path / "file") in err


def test_stages_in_the_wrong_order_or_unknown_are_refused(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = say(capsys, "run", run.root, "--from", "train", "--until", "tile")
    assert (code, "--from train comes after --until tile" in err) == (2, True)
    code, _, err = say(capsys, "run", run.root, "--until", "trane")
    assert (code, "no stage 'trane'" in err) == (2, True)
    assert say(capsys, "logs", run.root, "--stage", "nope")[0] == 2


def test_a_line_without_its_upstream_is_incomplete_at_once(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("run", run.root, "--from", "caption"), ("train", run.root)):
        code, _, err = say(capsys, *words)
        assert code == 5
        assert "not sealed" in err
    assert not (run.root / "logs").exists()


def test_a_missing_embedded_model_is_told_before_anything_starts(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("run", tmp_path / "new", "--config", config, "train.base_model=embedded:nosuch")
    code, _, err = say(capsys, *words)
    assert code == 2
    assert "no embedded model 'embedded:nosuch'" in err
    assert not (tmp_path / "new" / "logs").exists()


def test_a_stopped_run_starts_again_by_resume_only(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert say(capsys, "stop", run.root)[0] == 0
    assert "stopped by an operator" in say(capsys, "status", run.root)[1]
    code, _, err = say(capsys, "run", run.root)
    assert (code, "sarhpc resume" in err) == (2, True)
    assert say(capsys, "resume", run.root, "--dry-run")[0] == 0
    assert run.stop_file.exists(), "a dry run changes nothing"


@pytest.fixture
def restored_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take back what a job sets in its process: its rank, its logging."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR",
                 "MASTER_PORT"):  # fmt: skip
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("restored_process")
def test_a_stage_runs_in_this_process_by_the_debug_executor(
    run: RunDir, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish_all(work: Work) -> None:
        for task in work.ledger.missing(work.plan):
            made = Record(task.id, work.plan.id, "/d", 1, 1, "a", work.attempt, "h", now(), now())
            work.ledger.publish(made)

    def spec(name: str, shards: int, needs: tuple[str, ...]) -> StageSpec:
        def build(config: RunConfig, upstream: Sequence[str]) -> Stage:
            return Stage(name, needs, lambda _: make_plan(name, [{}] * shards), publish_all)

        return StageSpec(name, "", (), build)

    monkeypatch.setattr(registry, "STAGES", (spec("one", 1, ()), spec("two", 2, ("one",))))
    code, out, _ = say(capsys, "run", run.root, "--executor", "debug")
    assert code == 0
    assert "(line:one:two) by the debug executor" in out
    assert run.ledger("two").sealed
    # A job of the local executor would have left its pickle and its own process's log.
    assert not list(run.logs("one").glob("*_submitted.pkl"))
    code, out, _ = say(capsys, "run", run.root)
    assert (code, out) == (0, "nothing to do: every stage is sealed\n")


@pytest.mark.usefixtures("restored_process")
@pytest.mark.parametrize("words", [["simulate"], ["run"]])
def test_a_stage_that_breaks_while_planning_ends_with_its_cause_everywhere(
    run: RunDir,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
) -> None:
    def plan(_: RunDir) -> Plan:
        raise DataError("scene 7 has\nno bands; fix the archive")

    def build(config: RunConfig, upstream: Sequence[str]) -> Stage:
        return Stage("simulate", (), plan, lambda _: None)

    monkeypatch.setattr(registry, "STAGES", (StageSpec("simulate", "", (), build),))
    code, _, err = say(capsys, *words, run.root, "--executor", "debug")
    cause = "simulate attempt 0 exit=1: DataError: scene 7 has no bands; fix the archive"
    assert code != 0
    assert err.splitlines()[-1] == f"failed: {cause}"
    _, out, _ = say(capsys, "logs", run.root, "--failed")
    assert cause in out
    _, out, _ = say(capsys, "status", run.root, "--json")
    [found] = json.loads(out)["stages"]
    assert (found["state"], found["says"]) == ("FAILED", cause.removeprefix("simulate "))


def test_a_run_with_the_key_and_checkpoints_of_somebody_else_is_not_resumed(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    key = run.root / ".key"
    key.write_bytes(b"theirs, as a tar brings it here.")
    key.chmod(0o600)
    (run.stage("train") / "checkpoints" / "step_00000001").mkdir(parents=True)
    for words in (("resume", run.root), ("simulate", run.root)):
        code, _, err = say(capsys, *words, "--executor", "local")
        assert code == 4
        assert f"sarhpc resume {run.root} --trust-checkpoint" in err
    assert not (run.root / "logs").exists(), "no job was started"
    code, _, _ = say(capsys, "resume", run.root, "--dry-run", "--trust-checkpoint")
    assert code == 0
    assert key.read_bytes().startswith(b"theirs"), "a dry run changes nothing"


def test_a_part_of_a_run_that_is_done_does_not_pass_for_all_of_it(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    seal(run, "simulate")
    code, out, _ = say(capsys, "run", run.root, "--until", "simulate")
    assert (code, out) == (0, "nothing to do: the selected stages are sealed\n")


@pytest.mark.parametrize("verb", ["attach-job", "work"])
def test_a_verb_of_a_script_refuses_a_stage_that_does_not_exist(
    verb: str, run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = say(capsys, verb, run.root, "nope")
    assert (code, "no stage 'nope'; it has simulate, tile" in err) == (2, True)
    code, _, err = say(capsys, verb, run.root, "tile")
    assert (code, f"try `sarhpc tile {run.root}`" in err) == (2, True)


def test_a_path_that_is_no_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in ("status", "logs", "stop", "verify", "resume", "tile"):
        code, _, err = say(capsys, verb, tmp_path)
        assert (code, "sarhpc init" in err) == (2, True), verb
