from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.store.rundir import create_run
from sarhpc.cli import main
from sarhpc.cli.parser import build_parser

HEAVY = ["torch", "diffusers", "transformers", "rasterio", "dask", "distributed", "numpy", "scipy"]


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, json\n"
        "from sarhpc.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as e: code = e.code\n"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]), file=sys.stderr)"
    )
    seconds = []
    for _ in range(3):
        # Its own work: seconds of the clock would also tell who else is at work here.
        before = os.times()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        after = os.times()
        spent = after.children_user + after.children_system
        seconds.append(spent - before.children_user - before.children_system)
    assert json.loads(done.stderr) == []
    assert "VERB" in done.stdout
    assert min(seconds) < 0.15


def test_every_verb_has_a_handler_and_only_those_of_job_scripts_are_hidden() -> None:
    parser = build_parser()
    [verbs] = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    assert all(callable(verb.get_default("handler")) for verb in verbs.choices.values())
    listed = {action.dest for action in verbs._choices_actions}
    assert set(verbs.choices) - listed - {"report"} == {"attach-job", "enlist", "work"}
    assert verbs.choices["enlist"] is verbs.choices["attach-job"]


@pytest.mark.parametrize("verb", ["attach-job", "enlist", "work"])
def test_verbs_of_job_scripts_say_where_they_run(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    run = create_run(tmp_path / "run", "", "f00d")
    assert main([verb, str(run.root), "tile"]) == 2
    assert "must run inside a Slurm script; try `sarhpc tile" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["frobnicate"], "invalid choice"),
        (["status"], "required"),
        (["tile", "run", "train.lr=1"], "takes no overrides"),
        (["run", "r", "--nonsense"], "unknown arguments"),
    ],
)
def test_wrong_usage_exits_2_and_says_why(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(words)
    except SystemExit as ended:  # of argparse
        code = ended.code
    assert code == 2
    assert says in capsys.readouterr().err
