"""The observing verbs as an operator types them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from line_runs import tiny_run

from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now
from hpc.store.submissions import SubmissionRecord, publish_submission
from sarhpc.cli import main
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.train import checkpointed_step_times, training_progress


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return tiny_run(tmp_path / "run", tmp_path / "model")


def stand(run: RunDir, stage: str, shards: int, done: int) -> None:
    plan = make_plan(stage, [{"n": n} for n in range(shards)])
    publish_plan(plan, run.plan_file(stage))
    for task in plan.shards[:done]:
        run.ledger(stage).publish(
            Record(task.id, plan.id, "/d", 5, 9, "aa", 0, "n1", now(), now(), 1.0)
        )
    if done == shards:
        run.ledger(stage).seal(plan)


def metrics(run: RunDir, steps: int) -> None:
    folder = run.stage("train")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"step": n, "epoch": n / 2, "loss": 0.5, "samples_per_s": 8.0, "step_s": 0.5,
         "time": 1000.0 + n}
        for n in range(1, steps + 1)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_course_of_a_training_is_told_from_its_metrics(run: RunDir) -> None:
    assert training_progress(run) is None
    metrics(run, 3)
    progress = training_progress(run)
    assert progress is not None
    # Two steps an epoch, twelve epochs, but no more than four steps (train.max_steps).
    assert (progress.done, progress.goal, progress.per_s) == (3, 4, 2.0)
    assert "loss 0.5, 8 samples/s" in progress.note
    slow = {"rank": 3, "host": "n2", "own_s": 1.0, "ratio": 1.62, "straggles": True}
    (run.stage("train") / "pace.json").write_text(json.dumps({"ranks": [slow]}))
    told = training_progress(run)
    assert told is not None
    assert "slow: rank 3 on n2 (1.62 x)" in told.note


def test_the_course_tells_of_steps_that_were_skipped(run: RunDir) -> None:
    metrics(run, 2)
    log = run.stage("train") / "metrics.jsonl"
    first, last = (json.loads(line) for line in log.read_text().splitlines())
    del last["loss"]
    last |= {"trouble": "the loss is nan", "skipped": 1}
    log.write_text(json.dumps(first) + "\n" + json.dumps(last) + "\n")
    progress = training_progress(run)
    assert progress is not None
    assert (progress.done, progress.per_s) == (2, 2.0)
    assert progress.note.startswith("the loss is nan, skipped steps: 1, 8 samples/s")


def test_only_steps_that_a_checkpoint_holds_are_kept(run: RunDir) -> None:
    assert checkpointed_step_times(run) == []
    metrics(run, 4)
    (run.stage("train") / "checkpoints" / "step_00000002").mkdir(parents=True)
    assert checkpointed_step_times(run) == [1001.0, 1002.0]


def test_watching_into_a_file_ends_with_the_run(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in line_of_stages(load_run_config(run)):
        stand(run, stage.name, 2, 2)
    assert main(["status", str(run.root), "--watch"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert "tile=COMPLETE:2" in line


def screen_of(words: list[str], until: bytes, seconds: float = 30.0) -> str:
    """What a command shows on a terminal of 80 columns, ended by Ctrl-C once `until` is there."""
    master, slave = pty.openpty()
    command = f"stty cols 80 rows 40; exec {' '.join(words)}"
    # Tests that were started in the background inherit a deaf ear for Ctrl-C.
    process = subprocess.Popen(
        ["sh", "-c", command], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    os.close(slave)
    shown, limit = b"", time.monotonic() + seconds
    while until not in shown and time.monotonic() < limit:
        if select.select([master], [], [], 0.2)[0]:
            shown += os.read(master, 65536)
    os.killpg(process.pid, signal.SIGINT)
    limit = time.monotonic() + 10
    # A terminal that nobody reads fills up, and the command would wait for it for ever.
    while process.poll() is None and time.monotonic() < limit:
        if select.select([master], [], [], 0.2)[0]:
            with contextlib.suppress(OSError):  # the command has closed its side
                shown += os.read(master, 65536)
    code = process.wait(1)
    os.close(master)
    assert code == 0
    return shown.decode()


def test_the_view_on_a_terminal_of_80_columns(run: RunDir) -> None:
    stand(run, "simulate", 4, 4)
    stand(run, "tile", 100, 40)
    words = [sys.executable, "-m", "sarhpc.cli", "status", str(run.root), "--watch", "--every", "1"]
    shown = screen_of(words, b"Ctrl-C ends this view")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "\n")
    rows = [line for line in plain.splitlines() if line.strip()]
    assert any(line.split()[:2] == ["tile", "PARTIAL"] and "###----- 40/100" in line
               for line in rows)  # fmt: skip
    assert max(map(len, rows)) <= 80 or str(run.root) in max(rows, key=len)
    assert "\x1b[3" not in shown, "NO_COLOR is honoured"


def test_clean_shows_and_needs_a_yes(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", str(run.root)]) == 0
    assert capsys.readouterr().out == "nothing to clean\n"
    litter = run.stage("tile") / ".plan.json.h.1.0.tmp"
    litter.parent.mkdir()
    litter.write_text("torn")
    os.utime(litter, (0, 0))
    assert main(["clean", str(run.root)]) == 0
    out = capsys.readouterr().out
    assert f"sarhpc clean {run.root} --yes" in out
    assert litter.exists()
    assert main(["clean", str(run.root), "--yes"]) == 0
    assert not litter.exists()


def test_report_of_a_run_on_this_machine(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    stand(run, "generate", 2, 2)
    rows = [
        {"attempt": 0, "from": 0, "host": "h", "job": "1", "pid": 1,
         "started": "2026-01-01T00:00:00Z"},
        {"attempt": 0, "to": 2, "exit": 0, "reason": "done", "ended": "2026-01-01T01:00:00Z"},
    ]  # fmt: skip
    path = run.stage("generate") / "attempts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["costs", str(run.root), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["images"] == 10
    assert document["total"]["cpu_h"] == pytest.approx(2.0), "two workers for an hour"
    assert main(["costs", str(run.root)]) == 0
    assert "200 CPU-h per thousand images for generation" in capsys.readouterr().out


def test_report_knows_a_profile_that_was_named_by_its_file(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("executor: slurm\nresources: {cpus_per_task: 2, mem_gb: 1, time_min: 20}\n")
    record = SubmissionRecord(0, now(), "slurm", "mine", "f00d", (), profile_file=str(file))
    publish_submission(run, record)
    assert main(["costs", str(run.root)]) == 0
    assert "not known" not in capsys.readouterr().err
    file.unlink()
    assert main(["costs", str(run.root)]) == 0
    assert "widths of stages are not known: no profile 'mine'" in capsys.readouterr().err
