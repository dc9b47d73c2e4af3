from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from line_runs import TINY, seal_export, tiny_run

from hpc.errors import DataError
from hpc.job.pipeline import Stage, Work, run_stage
from hpc.publish import publish_bytes
from hpc.store.ledger import Failure, Record
from hpc.store.plan import Plan, make_plan, publish_plan
from hpc.store.rundir import RunDir, now, open_run
from hpc.store.tree import digest_tree
from sarhpc.cli import main
from sarhpc.stages import registry
from sarhpc.stages.config import RunConfig
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.spec import StageSpec


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    publish_bytes(folder / "unet" / "weights.safetensors", b"weights")
    return folder


@pytest.fixture
def run(tmp_path: Path, model: Path) -> RunDir:
    return tiny_run(tmp_path / "run", model)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def say(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a verb in this process."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def seal(run: RunDir, stage: str, shards: int = 2) -> list[Path]:
    """Stand a finished stage of small files in the run."""
    plan = make_plan(stage, [{"n": n} for n in range(shards)])
    publish_plan(plan, run.plan_file(stage))
    paths = []
    for task in plan.shards:
        path = run.root / "data" / stage / f"{task.id}.tar"
        digest = publish_bytes(path, task.id.encode() * 10)
        run.ledger(stage).publish(
            Record(task.id, plan.id, str(path), 3, digest.bytes, digest.sha256, 0, "h", now(),
                   now(), 1.0, {"nodata": 1}, {"split": "train"})
        )  # fmt: skip
        paths.append(path)
    run.ledger(stage).seal(plan)
    return paths


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


def test_other_values_for_a_standing_run_are_refused_and_shown(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "new"
    assert main(["init", str(root), "--config", str(config)]) == 0
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


def test_a_configuration_edited_by_hand_is_refused_and_shown(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "new"
    assert main(["init", str(root), "--config", str(config)]) == 0
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
        ("compare: {models: [1]}\n", "incompatible"),
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


def test_dry_run_shows_the_plan_and_what_is_left(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = say(capsys, "run", run.root, "--dry-run")
    assert code == 0
    assert "simulate: 4 shards, 4 to make, plan " in out
    assert "tile: planned when simulate is sealed" in out
    assert "generate: planned when " in out
    assert "evaluate: planned when caption, generate are sealed" in out
    assert not (run.root / "simulate").exists()


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


def test_status_of_fresh_partly_written_and_sealed_stages(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    seal(run, "simulate")
    plan = make_plan("tile", [{}] * 3)
    publish_plan(plan, run.plan_file("tile"))
    ledger = run.ledger("tile")
    ledger.publish(Record("000000", plan.id, "/d", 2, 1, "a", 0, "h", now(), now()))
    ledger.fail(Failure("000001", plan.id, 0, 1, "DataError", "torn at byte 17", now()))
    code, out, _ = say(capsys, "status", run.root, "--json")
    assert code == 0
    stages = {stage["name"]: stage for stage in json.loads(out)["stages"]}
    simulate, tile = stages["simulate"], stages["tile"]
    assert (simulate["state"], simulate["samples"], simulate["rejected"]) == ("COMPLETE", 6, 2)
    assert (tile["state"], tile["done"], tile["planned"]) == ("FAILED", 1, 3)
    assert (tile["samples"], tile["failed"]) == (2, 1)
    assert stages["train"]["state"] == "WAITING"
    assert "1/3" in say(capsys, "status", run.root)[1]
    code, out, _ = say(capsys, "logs", run.root, "--failed")
    assert (code, out) == (0, "tile 000001 tries=1 DataError: torn at byte 17\n")


def test_logs_tell_how_the_last_attempt_broke(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert say(capsys, "logs", run.root)[1] == "no logs yet\n"
    assert say(capsys, "logs", run.root, "--failed")[1] == "no shard failed\n"

    def breaks(work: Work) -> None:
        raise OSError("the card is gone")

    with pytest.raises(OSError, match="card"):
        run_stage(run, Stage("simulate", (), lambda _: make_plan("simulate", [{}]), breaks))
    code, out, _ = say(capsys, "logs", run.root, "--failed")
    assert (code, "attempt 0 exit=1: OSError: the card is gone" in out) == (0, True)
    run.logs("").mkdir()
    (run.logs("") / "1_log.err").write_text("".join(f"line {n}\n" for n in range(9)))
    assert say(capsys, "logs", run.root, "--tail", "2")[1].endswith("line 7\nline 8\n")
    assert "line" not in say(capsys, "logs", run.root, "--tail", "0")[1]


def test_verify_finds_changed_missing_and_strange_artefacts(
    run: RunDir, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = seal(run, "simulate")
    seal_export(run, model)
    assert say(capsys, "verify", run.root, "--deep")[:2] == (0, "3 artefacts checked, 0 wrong\n")

    content = first.read_bytes()
    first.write_bytes(content[:-1] + b"x")
    assert say(capsys, "verify", run.root)[0] == 0, "sizes alone do not tell"
    code, out, _ = say(capsys, "verify", run.root, "--deep")
    assert code == 4
    assert f"simulate 000000: {first} has the right size and the wrong content" in out

    first.write_bytes(content[:-1])
    second.unlink()
    (model / "unet" / "weights.safetensors").write_bytes(b"weights and more")
    code, out, err = say(capsys, "verify", run.root)
    assert code == 4
    assert "has 59 bytes, its record says 60" in out
    assert f"{second} is missing" in out
    assert f"export 000000: {model} holds 16 bytes, its record says 7" in out
    assert out.endswith("3 artefacts checked, 3 wrong\n")
    assert "manifest.jsonl" in err


def test_verify_finds_a_record_of_another_plan(
    run: RunDir, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_plan(make_plan("export", [{}]), run.plan_file("export"))
    digest = digest_tree(model)
    run.ledger("export").publish(
        Record("000000", "elsewhere", str(model), 0, digest.bytes, digest.sha256, 0, "h", "", "")
    )
    code, out, _ = say(capsys, "verify", run.root)
    assert (code, "belongs to plan elsewhere" in out) == (4, True)


def test_a_path_that_is_no_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in ("status", "logs", "stop", "verify", "resume", "tile"):
        code, _, err = say(capsys, verb, tmp_path)
        assert (code, "sarhpc init" in err) == (2, True), verb


@pytest.mark.slow
def test_a_dry_run_tells_steps_memory_and_hours_of_the_papers_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, paper = tmp_path / "paper", Path(__file__).parents[3] / "configs" / "paper_sd15.yaml"
    words = ["archive.uri=/archive", "train.keep_every_steps=2500"]
    assert main(["init", str(root), "--config", str(paper), *words]) == 0
    code, out, _ = say(capsys, "train", root, "--dry-run")
    assert code == (0 if shutil.disk_usage(root).free > 88.43e9 else 2), "as there is room"
    assert "7,500 steps for each 10,000 tiles" in out
    assert "trainable parameters: 982.6 M of 982.6 M" in out
    assert "fits on A100-40 yes" in out
    assert "one checkpoint: 17.69 GB" in out
    # The two newest, the one being written, and those of steps 2,500 and 5,000.
    assert "about 88.43 GB in 140 inodes" in out
    assert "2.45 TFLOP an image" in out
    assert "GPU-hours on A100 (28% of peak" in out
    assert not (root / "train").exists()


@pytest.mark.slow
def test_latents_encoded_once_save_the_arithmetic_of_eleven_epochs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = []
    for name, words in (("plain", []), ("once", ["encode.threads=1"])):
        root, paper = tmp_path / name, Path(__file__).parents[3] / "configs" / "paper_sd15.yaml"
        main(["init", str(root), "--config", str(paper), "archive.uri=/archive", *words])
        _, out, _ = say(capsys, "train", root, "--dry-run")
        costs.append(float(out.partition("together ")[2].partition(" PFLOP")[0].replace(",", "")))
    # 11 times 10,000 images less at 1.117 TFLOP.
    assert costs[0] - costs[1] == pytest.approx(110_000 * 1.117e-3, abs=1.5)


def test_a_dry_run_says_that_a_batch_does_not_divide(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(run.root), "cluster.ranks=3"]) == 0
    code, _, err = say(capsys, "train", run.root, "--dry-run")
    assert code == 2
    assert "train.global_batch=4 is no multiple of micro_batch x ranks = 2 x 3" in err
