"""What a command that waited ends with."""

from __future__ import annotations

from pathlib import Path

import pytest
from line_runs import seal_captions, seal_export, tiny_run

from hpc.publish import publish_bytes
from hpc.store.attempts import begin_attempt, end_attempt
from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now
from sarhpc.launch.outcome import outcome_lines
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return tiny_run(tmp_path / "run", tmp_path / "model")


def facts(run: RunDir, *, failed: bool = False) -> dict[str, str]:
    lines = outcome_lines(run, failed=failed)
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}


def seal(run: RunDir, stage: str) -> None:
    plan = make_plan(stage, [{}])
    publish_plan(plan, run.plan_file(stage))
    record = Record("000000", plan.id, "/d", 24, 9, "aa", 0, "n1", now(), now(), 1.0)
    run.ledger(stage).publish(record)
    run.ledger(stage).seal(plan)


def test_a_run_that_has_made_nothing_ends_with_the_next_command(run: RunDir) -> None:
    [(name, command)] = facts(run).items()
    assert name == "next"
    assert command.startswith(f"sarhpc run {run.root}  # simulate, tile, caption")


def test_a_finished_run_ends_with_what_it_made(run: RunDir, tmp_path: Path) -> None:
    model = tmp_path / "exported"
    publish_bytes(model / "unet" / "weights.safetensors", b"weights")
    seal_captions(run)
    seal_export(run, model)
    for stage in line_of_stages(load_run_config(run)):
        if not run.ledger(stage.name).sealed:
            seal(run, stage.name)
    (run.root / "report.html").write_text("<p>")
    found = facts(run)
    assert found["report"] == str(run.root / "report.html")
    assert found["model"] == str(model)
    assert found["corpus"] == f"{run.root}/data/synthetic  (24 images)"
    assert found["next"] == f"sarhpc view {run.root}"


def test_a_failed_and_a_stopped_run_say_how_they_go_on(run: RunDir) -> None:
    failed = facts(run, failed=True)["next"]
    assert failed == f"sarhpc logs {run.root} --failed, then sarhpc resume {run.root}"
    attempt = begin_attempt(run.stage("simulate"), 0)
    end_attempt(run.stage("simulate"), attempt, 0, 4, "the gate accepts nothing")
    lasting = facts(run, failed=True)["next"]
    assert lasting == f"sarhpc logs {run.root} --failed  # the same start would fail again"
    run.stop_file.touch()
    assert facts(run)["next"] == f"sarhpc resume {run.root}"
