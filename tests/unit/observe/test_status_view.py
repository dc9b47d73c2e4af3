"""How the status of a run is shown: to people, in logs and as JSON."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from queued_runs import STAGES, Slurm, queued, stand, submitted

from hpc.job.pipeline import Stage, StageProgress
from hpc.observe.status import RunStatus, run_status
from hpc.observe.view import duration_text, key_values, rate_text, status_lines
from hpc.store.lease import lease
from hpc.store.rundir import RunDir, create_run


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return create_run(tmp_path / "run", "a: 1\n", "f00d")


def full_status(run: RunDir) -> RunStatus:
    """A run with something of everything that a line may have to tell."""
    progress = StageProgress(123_456, 200_000, "steps", 1.25, "loss 0.1374, 32.4 samples/s")
    stages = [
        STAGES[0],
        Stage(
            "caption-train", (), STAGES[0].plan, STAGES[0].work, live_progress=lambda _: progress
        ),
        STAGES[1],
    ]
    stand(run, "tile", 10_000 // 100, 40)
    checkpoint = run.stage("caption-train") / "checkpoints" / "step_00123400"
    checkpoint.mkdir(parents=True)
    submitted(run, ("tile", "1234567"), ("caption-train", "1234568"), ("train", "1234569"))
    rows = [
        queued("1234567_1", nodes="node[001-128,140-160]", restarts=3),
        queued("1234567_[2-500%20]", "PENDING", "JobArrayTaskLimit"),
        queued("1234568", nodes="gpu-node-0001", elapsed_s=90),
        queued("1234569", "PENDING", "DependencyNeverSatisfied"),
    ]
    return run_status(run, stages, Slurm(rows))


def test_the_view_fits_80_columns_and_tells_what_matters(run: RunDir) -> None:
    run.stop_file.touch()
    status = full_status(run)
    lines = [line.text for line in status_lines(status)]
    long = [line for line in lines if len(line) > 80 and str(run.root) not in line]
    assert long == []
    text = " ".join(" ".join(lines).split())
    for reported in ("BLOCKED", "40/100", "123456/200000", "loss 0.1374", "step_00123400",
                    "restarts 3",
                 "waits: JobArrayTaskLimit", "2 h 00", "sarhpc resume", "stopped by an operator",
                 "1 running, 499 waiting"):  # fmt: skip
        assert reported in text, reported


def test_colour_marks_the_state_and_nothing_else_of_a_row(run: RunDir) -> None:
    marked = {
        line.word for line in status_lines(full_status(run)) if not line.text.startswith("   ")
    }
    assert {"RUNNING", "BLOCKED"} <= marked


def test_a_log_gets_one_line_of_keys_and_values(run: RunDir) -> None:
    line = key_values(full_status(run))
    assert "\n" not in line
    assert "tile=RUNNING:40" in line


def test_a_line_of_a_log_tells_rate_and_rest_of_what_is_worked_on(run: RunDir) -> None:
    run.stage("caption-train").mkdir()
    with lease(run.stage("caption-train") / ".lease.json"):
        line = key_values(full_status(run))
    words = {*line.split()}
    assert {"tile/shards=40/100", "caption-train/steps=123456/200000"} <= words
    assert {"caption-train/steps_per_s=1.25", "caption-train/eta_s=61235"} <= words
    assert 'caption-train/note="loss 0.1374, 32.4 samples/s"' in line


def test_a_line_of_a_log_has_no_key_for_what_is_not_known(run: RunDir) -> None:
    stand(run, "tile", 4, 0)
    submitted(run, ("tile", "12"))
    line = key_values(run_status(run, STAGES, Slurm([queued("12", "PENDING", "Priority")])))
    assert "tile/waits=Priority" in line
    assert "eta_s" not in line
    assert "_per_s" not in line


@pytest.mark.parametrize("per_s", [0.0, float("inf"), float("nan"), -1.0, None])
def test_no_rate_and_no_rest_is_shown_that_is_no_number(run: RunDir, per_s: float | None) -> None:
    progress = StageProgress(1, 10, "steps", per_s)
    stage = Stage("tile", (), STAGES[0].plan, STAGES[0].work, live_progress=lambda _: progress)
    stand(run, "tile", 4, 0)
    run.stage("tile").mkdir(exist_ok=True)
    with lease(run.stage("tile") / ".lease.json"):
        status = run_status(run, [stage])
    text = key_values(status) + " ".join(line.text for line in status_lines(status))
    assert "RUNNING" in text
    assert not re.search(r"\b(inf|nan)\b|_per_s|eta_s", text)


def test_a_low_terminal_shows_what_is_worked_on(run: RunDir) -> None:
    names = [f"s{n}" for n in range(9)]
    stages = [Stage(n, ("tile",), STAGES[0].plan, STAGES[0].work) for n in names]
    status = run_status(run, [STAGES[0], *stages])
    lines = status_lines(status, brief=True)
    assert len(status_lines(status)) - len(lines) == 8
    assert any(f"WAITING: {', '.join(names)}" in line.text for line in lines)


def test_json_holds_what_the_view_shows(run: RunDir) -> None:
    document = json.loads(json.dumps(full_status(run).to_json()))
    tile, captions, train = document["stages"]
    assert (tile["state"], tile["done"], tile["queue"]["waiting"]) == ("RUNNING", 40, 499)
    assert captions["course"]["done"] == 123_456
    assert "resume" in train["says"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "5 s"), (300, "5 min"), (11_100, "3 h 05"), (187_200, "2 d 04 h")],
)
def test_spans_read_well(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(("per_s", "text"), [(3.14, "3.14/s"), (0.05, "3/min"), (0.001, "3.6/h")])
def test_rates_read_well(per_s: float, text: str) -> None:
    assert rate_text(per_s) == text


def test_a_quoted_path_in_a_command_stays_in_one_piece(tmp_path: Path) -> None:
    run = create_run(tmp_path / "it's my work" / "the first run", "a: 1\n", "f00d")
    run.stop_file.touch()
    submitted(run, ("tile", "11"))
    rows = [queued("11", "PENDING", "DependencyNeverSatisfied")]
    lines = [line.text for line in status_lines(run_status(run, STAGES, Slurm(rows)), width=60)]
    assert sum(run.quoted in line for line in lines) == 2, lines
    assert shlex.split(run.quoted) == [str(run.root)]
