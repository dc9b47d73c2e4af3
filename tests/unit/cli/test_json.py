"""`--json`: every verb that prints a result prints it for programs too, as one document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from line_runs import tiny_run
from stage_verbs import say, seal

from hpc.store.rundir import RunDir
from sarhpc.cli import main
from sarhpc.cli.parser import build_parser
from sarhpc.cli.verb_groups import ENTRIES

TELL_NOTHING = {
    "init": "--cfg prints YAML", "stop": "", "cancel": "", "supervise": "a log",
    "inspect": "writes a page", "grid": "writes a picture and a JSON beside it",
    "decoder": "writes report.json", "package": "", "export-corpus": "",
    "view": "shows pages", "demo": "shows each step",
}  # fmt: skip


def document(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 0) -> Any:
    found, out, err = say(capsys, *words, "--json")
    assert found == code, err
    return json.loads(out)


@pytest.mark.parametrize("name", sorted({*ENTRIES} - {*TELL_NOTHING}))
def test_a_verb_that_tells_something_has_the_flag(name: str) -> None:
    parser = build_parser(name)
    [verbs] = [action for action in parser._actions if action.dest == "verb"]
    flags = {flag for action in verbs.choices[name]._actions for flag in action.option_strings}  # type: ignore[index]
    assert "--json" in flags


def test_verbs_on_a_run_print_one_document(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SARHPC_MODELS", str(tmp_path / "models"))
    paths = seal(run, "simulate")
    assert document(capsys, "verify", run.root) == {"checked": 2, "problems": []}
    paths[0].write_bytes(b"other")
    [problem] = document(capsys, "verify", run.root, code=4)["problems"]
    assert str(paths[0]) in problem
    assert document(capsys, "clean", run.root)["removed"] is False
    (run.logs("tile")).mkdir(parents=True)
    (run.logs("tile") / "1_0.a0.log").write_text("one\ntwo\n")
    found = document(capsys, "logs", run.root, "--tail", "1")
    assert [log["tail"] for log in found["logs"]["tile"]] == [["two"]]
    assert found["failures"] == {}
    assert document(capsys, "logs", run.root, "--failed") == {"failures": {}, "logs": {}}
    assert document(capsys, "status", run.root)["stages"][0]["state"] == "COMPLETE"
    assert "trusted" in document(capsys, "trust")
    models = document(capsys, "fetch")
    assert {"name": "sd15", "folder": None}.items() <= models[0].items()
    assert say(capsys, "logs", run.root, "--json", "-f")[0] == 2


def test_a_dry_run_prints_plan_and_cost_as_one_document(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(capsys, "run", run.root, "--dry-run", "--profile", "a100", "--until", "tile")
    assert [row["stage"] for row in found["stages"]] == ["simulate", "tile"]
    assert (found["stages"][0]["shards"], found["stages"][1]["waits_for"]) == (4, ["simulate"])
    assert found["together"]["gpu_hours"] == 0.0
    assert not (run.root / "simulate").exists()


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["debug", "local"])
def test_a_submission_prints_its_jobs_as_one_document(
    executor: str, run: RunDir, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["run", str(run.root), "--until", "simulate", "--executor", executor, "--wait"]
    assert main([*words, "simulate.scenes=1", "--json"]) == 0
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert (found["run"], found["exit_code"], found["error"]) == (str(run.root), 0, None)
    assert (found["sealed"], found["left"][0], found["waited"]) == (["simulate"], "tile", True)
    [job] = found["jobs"]
    assert job.items() >= {"stage": "line:simulate:simulate", "new": True}.items()
    assert f"job {job['id']} (line:simulate:simulate) by the {executor} executor" in err
    assert found["outcome"]["next"].startswith(f"sarhpc run {run.root}")
    assert "changed for this run: simulate.scenes: 4 -> 1" in err
    # Nothing is left to start.
    assert main([*words, "--json"]) == 0
    again = json.loads(capfd.readouterr().out)
    assert (again["jobs"], again["exit_code"]) == ([], 0)


@pytest.mark.slow
def test_work_that_fails_prints_its_jobs_and_its_exit_code(
    run: RunDir, capfd: pytest.CaptureFixture[str]
) -> None:
    seal(run, "simulate")  # of no scene
    assert main(["tile", str(run.root), "--executor", "debug", "--json"]) != 0
    found = json.loads(capfd.readouterr().out)
    assert [job["stage"] for job in found["jobs"]] == ["tile"]
    assert found["exit_code"] != 0
    assert "--failed" in found["outcome"]["next"]


def test_a_refused_submission_prints_no_document(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["cluster.ranks=0"], ["train.base_model=/none"], ["--print-sbatch"]):
        code, out, err = say(capsys, "run", run.root, "--executor", "local", "--json", *words)
        assert (code, out) == (2, ""), words
        assert err.startswith("sarhpc run: ")
    assert not (run.root / "simulate").exists()


def test_an_ablation_is_one_document_that_names_what_is_not_evaluated(
    run: RunDir, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny_run(tmp_path / "other", model, ["train.lr_unet=3e-5"])
    found = document(capsys, "ablation", run.root, other.root)
    assert found["settings"] == ["train.lr_unet"]
    assert [row["settings"]["train.lr_unet"] for row in found["rows"]][1] == 3e-5
    assert found["notes"][1] == f"other: not evaluated yet: sarhpc evaluate {other.root}"
