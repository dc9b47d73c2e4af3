"""Advice that a message gives can be followed."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_trees import REPOSITORY, SOURCES, place, syntax_nodes
from stage_verbs import say, seal

from hpc.cluster.profile import load_profile
from hpc.errors import ConfigError, HpcError
from hpc.job.elements import run_element
from hpc.store.rundir import RunDir
from sarhpc.cli import main
from sarhpc.cli.parser import build_parser
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.training.schedule import fitting_micro_batch

HELP = REPOSITORY / "sarhpc" / "cli" / "verb_groups.py"
STAGE = "generate"
"""Stands for the value of a replacement field where a verb would be."""


def advised() -> Iterator[tuple[str, str]]:
    """File and text after `sarhpc ` of every message of the program that names a command."""
    for path in SOURCES:
        if "sarhpc " not in path.read_text() or path == HELP:
            continue
        documents = {
            id(node.value) for node in syntax_nodes(path)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }  # fmt: skip
        inside = {
            id(part) for node in syntax_nodes(path)
            if isinstance(node, ast.JoinedStr) for part in node.values
        }  # fmt: skip
        for node in syntax_nodes(path):
            if id(node) not in documents | inside:
                for text in re.findall(r"\bsarhpc ([^`;\n]+)", _text(node)):
                    yield place(path), text


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        parts = [n.value if isinstance(n, ast.Constant) else STAGE for n in node.values]
        return "".join(map(str, parts))
    return ""


def test_commands_that_messages_name_have_their_verb_and_flags() -> None:
    [verbs] = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    strange, wrong = [], []
    for file, text in sorted(set(advised())):
        verb, *words = (word.strip(".,:()'\"") for word in text.split())
        if verb not in verbs.choices:
            strange.append(f"{file}: {text}")
            continue
        known = {flag for a in verbs.choices[verb]._actions for flag in a.option_strings}
        wrong += [f"{file}: {text}"] * bool({w for w in words if w.startswith("--")} - known)
    assert wrong == []
    # Sentences in which `sarhpc` stands for the program.
    assert len(strange) <= 8, strange


def named_command(message: str, which: int = 0) -> list[str]:
    """The words of a command that a message names, without the name of the program."""
    text = re.sub(r"^sarhpc \S+: ", "", message, flags=re.MULTILINE)
    return shlex.split(re.findall(r"\bsarhpc ([^`;\n]+)", text)[which])


def test_what_is_no_run_can_be_made_one_as_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, err = say(capsys, "status", tmp_path / "run")
    assert main(named_command(err)) == 0
    assert say(capsys, "status", tmp_path / "run")[0] == 0


def test_a_frozen_configuration_is_left_alone_as_told(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    seal(run, "simulate")
    words = ["run", run.root, "--executor", "local", "--dry-run", "--until", "simulate"]
    code, _, err = say(capsys, *words, "train.max_steps=9")
    assert (code, "leave the overrides out" in err) == (2, True)
    assert say(capsys, *words)[0] == 0


def test_an_edited_frozen_configuration_is_put_back_as_told(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(run.root), "train.max_steps=5"]) == 0
    seal(run, "simulate")
    text = run.config_text
    run.config_file.write_text(text.replace("max_steps: 5", "max_steps: 9"))
    code, _, err = say(capsys, "status", run.root)
    assert (code, "train.max_steps: 5 -> 9; put the old values back" in err) == (2, True)
    run.config_file.write_text(text)
    assert say(capsys, "status", run.root)[0] == 0


def test_a_stage_whose_upstream_is_open_names_what_to_run_first(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = say(capsys, "tile", run.root, "--executor", "local")
    assert code == 5
    first, then = named_command(err), named_command(err, 1)
    assert (first[:2], then[:2]) == (["simulate", str(run.root)], ["resume", str(run.root)])
    assert main([*first[:2], "--dry-run"]) == 0
    stage = stage_named(load_run_config(run), "simulate")
    run_element(run, stage, 0, lambda plan: [shard.id for shard in plan.shards])
    assert main([*then[:2], "--dry-run"]) == 0


@pytest.mark.parametrize("world", [3, 6])
def test_the_numbers_of_ranks_that_a_refusal_names_are_accepted(world: int) -> None:
    with pytest.raises(ConfigError) as refused:
        fitting_micro_batch(8, 16, world)
    named = str(refused.value).partition("use one of ")[2].partition(" (")[0]
    assert [fitting_micro_batch(8, 16, int(n)) * int(n) <= 16 for n in named.split(", ")]


def test_a_model_that_was_not_fetched_is_fetched_by_the_command_told(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SARHPC_MODELS", str(tmp_path / "models"))
    code, _, err = say(capsys, "run", run.root, "train.base_model=fetched:sd15")
    assert code == 2
    words = named_command(err.partition("on a node with network: ")[2])
    assert words[:2] == ["fetch", "sd15"]
    (tmp_path / "there").mkdir()
    # The verb knows the model: what it lacks here is files.
    _, _, err = say(capsys, *words, "--from", tmp_path / "there")
    assert "there has no model_index.json; give a folder with the files of" in err


def test_a_profile_that_is_not_there_is_made_as_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HpcError, match="Copy") as refused:
        load_profile("mine")
    named = re.findall(r"(slurm/profiles/\S+\.yaml)", str(refused.value))
    (tmp_path / "slurm" / "profiles").mkdir(parents=True)
    shutil.copy(REPOSITORY / named[0], tmp_path / "slurm" / "profiles" / "mine.yaml")
    assert load_profile("mine").executor == "slurm"


def test_a_stopped_run_is_resumed_as_told(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = say(capsys, "stop", run.root)
    reported = named_command(out.strip())
    code, _, err = say(capsys, "run", run.root, "--executor", "local")
    assert (code, named_command(err)[:2]) == (2, reported)
    assert main([*reported, "--dry-run"]) == 0
    assert run.stop_file.exists(), "a look changes nothing"
