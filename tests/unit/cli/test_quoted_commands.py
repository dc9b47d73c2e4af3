"""Commands that messages name can be copied, also for folders with blanks and quotes."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from line_runs import tiny_run
from source_trees import SOURCES, place, syntax_nodes
from stage_verbs import say

from hpc.store.rundir import RunDir
from sarhpc.cli import main
from sarhpc.launch.outcome import outcome_lines

OF_PROGRAMS = ("hpc/cluster/batch.py", "hpc/cluster/profile.py", "sarhpc/cli/__init__.py",
               "sarhpc/cli/verbs.py", "sarhpc/cli/verb_groups.py")  # fmt: skip
"""Files that write scripts (which quote their words) or the name of the program."""
PLAIN = ("name", "node", "need", "job", "model.name", "stage.name", "disk.name", "record.number")
"""Names of stages, nodes, models that ship, and numbers."""


@pytest.fixture
def run(tmp_path: Path, model: Path) -> RunDir:
    return tiny_run(tmp_path / "it's my work" / "run 1", model)


def unquoted(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Line and expression of what a command in a message contains as it is."""
    for node in nodes:
        if not isinstance(node, ast.JoinedStr):
            continue
        before = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                before += str(part.value)
                continue
            assert isinstance(part, ast.FormattedValue)
            value = ast.unparse(part.value)
            command = re.split(r"[`;\n#]|, then |\. ", before)[-1]
            quoted = value.endswith(".quoted") or value.startswith(("quoted(", "shlex.quote("))
            if re.search(r"\b(sarhpc [a-z{]|chmod |touch )", command) and not quoted:
                yield part.lineno, value
            before += "{}"


def test_every_path_in_a_command_of_a_message_is_quoted() -> None:
    found = [
        f"{place(path)}:{line}: {value}"
        for path in SOURCES
        if place(path) not in OF_PROGRAMS and re.search("sarhpc |chmod |touch ", path.read_text())
        for line, value in unquoted(syntax_nodes(path))
        if value not in PLAIN
    ]
    assert found == []
    seen = ast.walk(ast.parse('f"see `sarhpc status {run.root}`"'))
    assert [*unquoted(seen)] == [(1, "run.root")]


def commands(text: str) -> list[list[str]]:
    """The words of each command in a message, without the name of the program."""
    found = re.findall(r"(?<!^)\bsarhpc ([a-z-]+ (?:'[^']*'(?:\"'\"'[^']*')*|\S+).*?)(?=[`;\n]|, then|$)", text)  # fmt: skip # noqa: E501
    return [shlex.split(command, comments=True) for command in found]


def test_commands_that_verbs_print_name_the_run_as_one_word(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(run.root)
    _, drafted, _ = say(capsys, "init", run.root, "train.max_steps=5")
    _, stopped, _ = say(capsys, "stop", run.root)
    _, _, refused = say(capsys, "run", run.root, "--executor", "local")
    outcome = "\n".join(outcome_lines(run, failed=False))
    failed = "\n".join(outcome_lines(run, failed=True))
    _, status, _ = say(capsys, "status", run.root)
    for text in (drafted, stopped, refused, outcome, failed, status):
        assert commands(text), text
        for words in commands(text):
            assert words[1] == place, text
    assert main(["resume", place, "--dry-run"]) == 0


def test_a_run_that_is_not_there_is_made_by_the_command_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "a b" / "it's $HOME"
    _, _, err = say(capsys, "status", place)
    [words] = commands(err)
    assert main(words) == 0
    assert RunDir(place).frozen
