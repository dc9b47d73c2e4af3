"""`sarhpc --help`: every verb in a group, its summary and its example those of its parser."""

from __future__ import annotations

import argparse
import shlex

import pytest

from sarhpc.cli import main
from sarhpc.cli.parser import build_parser
from sarhpc.cli.verb_groups import ENTRIES, GROUPS, PARTS, VerbEntry


def summaries() -> dict[str, str]:
    [verbs] = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return {action.dest.partition(" ")[0]: str(action.help) for action in verbs._choices_actions}


def test_every_verb_is_in_one_group_with_its_own_summary() -> None:
    assert {name: entry.summary for name, entry in ENTRIES.items()} == summaries()
    assert len(ENTRIES) == sum(len(entries) for _, entries in GROUPS)


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=lambda entry: entry.name)
def test_the_example_of_a_verb_is_a_command_of_it(
    entry: VerbEntry, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(entry.example)
    arguments, rest = build_parser(entry.name).parse_known_args(words)
    assert arguments.verb == entry.name
    assert not rest or (hasattr(arguments, "overrides") and all("=" in word for word in rest))
    with pytest.raises(SystemExit):
        main([entry.name, "--help"])
    assert f"example:\n  sarhpc {entry.example}\n" in capsys.readouterr().out


def test_help_shows_groups_and_an_example_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert shown == build_parser().format_help()
    for title, entries in GROUPS:
        block = shown.partition(f"\n{title}:\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in block.splitlines()[:-1]] == [e.name for e in entries]
        assert block.splitlines()[-1].split()[:2] == [">", "sarhpc"]
    assert "attach-job" not in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_costs_still_answers_to_its_name_of_before() -> None:
    assert PARTS["report"] == PARTS["costs"]
    assert build_parser("report").parse_args(["report", "RUN"]).run == "RUN"
