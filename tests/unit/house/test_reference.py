"""The generated reference says all there is, and pages name settings and messages that exist."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from api_reference import api_page
from checked_ranges import CHECKED, CheckedRange
from settings_reference import Setting, kind_of, settings, settings_pages
from source_trees import REPOSITORY, SOURCES, syntax_nodes
from verbs_reference import verbs_page

from hpc.cluster.profile import Profile
from hpc.config import load
from hpc.errors import ConfigError
from sarhpc.archive.declaration import Declaration
from sarhpc.cli.parser import build_parser
from sarhpc.stages.config import RunConfig
from sarhpc.stages.number_ranges import RANGES
from sarhpc.stages.registry import STAGES

PAGES = [
    page
    for page in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md")))
    if page.parent.name != "adr"
]


@cache
def all_settings() -> tuple[Setting, ...]:
    return tuple(settings(RunConfig))


@pytest.mark.parametrize(
    "schema", [RunConfig, Profile, Declaration], ids=lambda kind: kind.__name__
)
def test_every_setting_has_a_text(schema: type) -> None:
    assert [item.key for item in settings(schema) if len(item.text) < 5] == []


def test_a_setting_without_a_text_is_noticed() -> None:
    assert dataclasses.is_dataclass(Undocumented)
    assert [item.text for item in settings(Undocumented)] == ["Said.", ""]


@dataclasses.dataclass
class Undocumented:
    said: int = 1
    """Said."""
    unsaid: int = 2


def test_the_page_of_a_setting_has_type_default_range_stage_and_text() -> None:
    page = settings_pages()["tile.md"]
    entry = page.partition("{ #tile.min_valid }")[2].partition("###")[0]
    assert "*number; default `0.95`; from 0 to 1*" in entry
    assert "Least share of valid pixels in a tile." in entry
    assert "Read by: tile." in page


def test_every_branch_and_every_setting_has_a_place() -> None:
    text = "\n".join(settings_pages().values())
    assert [item.key for item in all_settings()
            if "." in item.key and f"{{ #{item.key} }}" not in text] == []  # fmt: skip
    for field in dataclasses.fields(RunConfig):
        assert f"`{field.name}`" in settings_pages()["index.md"]


def test_every_range_is_of_a_setting() -> None:
    keys = {item.key.replace("[]", "") for item in all_settings()}
    assert sorted(RANGES.keys() - keys) == []


OTHER_BRANCHES = {
    "imported": ["imported={path: /data/theirs}"],
    "caption_train": ["caption_train={judge: {}}"],
    "clip_train": ["clip_train={judge: {}}"],
    "prior": ["prior={}", "train.prior={}"],
    "generate": ["generate.prompts=[a lake]"],
    "compare": ["compare.models.base=embedded:base"],
    "simulate": ["simulate={}"],
}


def refused(key: str, value: float) -> list[str]:
    """The messages of the stages of a configuration with that value."""
    branch = key.partition(".")[0]
    words = [*OTHER_BRANCHES.get(branch, []), f"{key}={value:g}"]
    config = load(RunConfig, overrides=words)
    messages = []
    for spec in STAGES:
        if branch in spec.branches and spec.enabled(config):
            try:
                spec.check(config)
            except ConfigError as error:
                messages.append(str(error))
    return messages


@pytest.mark.parametrize("bounds", CHECKED, ids=lambda item: f"{item.text}: {item.keys.split()[0]}")
def test_a_range_that_a_part_checks_is_as_told(bounds: CheckedRange) -> None:
    for key in bounds.keys.split():
        name = key.rpartition(".")[2]
        assert [text for text in refused(key, bounds.inside) if name in text] == [], key
        for value in bounds.outside:
            assert any(name in text for text in refused(key, value)), f"{key}={value}"


def test_nearly_every_number_has_a_range() -> None:
    """Seeds, levels in dB and lists of particular lengths have none."""
    numbers = [item for item in all_settings() if item.kind.split()[0] in ("number", "integer")]
    without = [item.key for item in numbers if not item.bounds]
    assert len(without) < len(numbers) / 6, without


def test_types_read_as_a_user_writes_values() -> None:
    assert kind_of(list[float] | None) == "list of number or null"
    assert kind_of(dict[str, list[str]]) == "mapping of text to list of text"


def test_every_verb_and_flag_is_in_the_reference() -> None:
    page = verbs_page()
    [verbs] = [item for item in build_parser()._actions if item.dest == "verb"]
    reported = {
        name: verb for name, verb in dict(verbs.choices or {}).items() if f"#{name} }}" in page
    }
    assert len(reported) > 25
    for name, verb in reported.items():
        section = page.partition(f"{{ #{name} }}\n")[2].partition("\n## ")[0]
        shown = [action for action in verb._actions if action.help != argparse.SUPPRESS]
        flags = [action.option_strings[0] for action in shown if action.option_strings]
        assert [flag for flag in flags if flag != "-h" and flag not in section] == [], name


def test_functions_that_guides_use_have_an_entry() -> None:
    page = api_page()
    assert "read_shard(path" in page
    assert page.count("\n### ") >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_settings_that_a_page_names_exist(page: Path) -> None:
    """Keys below a branch; names of files and of Python's attributes are something else."""
    branches = "|".join(field.name for field in dataclasses.fields(RunConfig))
    keys = {re.sub(r"\[\]|\.NAME", "", item.key) for item in all_settings()}
    open_ended = {item.key for item in all_settings() if item.kind.startswith("mapping")}
    text = re.sub(r"```python\n.*?```", "", page.read_text(), flags=re.DOTALL)
    named = re.findall(rf"(?<![\w./-])((?:{branches})(?:\.[a-z_0-9]+)+)", text)
    files = r"\.(md|yaml|json|jsonl|html|py|png|tif|npy|parquet|tar|toml|csv|sbatch|log)$"
    missing = [
        name for name in named
        if name not in keys and not re.search(files, name)
        and not any(name.startswith(f"{key}.") for key in open_ended)
    ]  # fmt: skip
    assert missing == []


@cache
def messages() -> tuple[str, ...]:
    """Every text in the source, with … for what is filled in."""
    return tuple(text for path in SOURCES for text in _texts(path))


def _texts(path: Path) -> Iterator[str]:
    for node in syntax_nodes(path):
        match node:
            case ast.Constant(str(text)):
                yield text
            case ast.JoinedStr(parts):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts
                )


def quoted() -> list[str]:
    """The messages in the first column of the tables of messages."""
    text = (REPOSITORY / "docs" / "troubleshooting.md").read_text()
    tables = re.findall(r"\| message \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text)
    rows = [row for table in tables for row in table.splitlines()]
    return [found[1] for row in rows if (found := re.match(r"\| `(.*?)` \|", row))]


@pytest.mark.parametrize("message", quoted())
def test_a_message_of_troubleshooting_is_one_that_is_given(message: str) -> None:
    wanted = message.rstrip(" .…")
    assert any(wanted in text for text in messages()), "no such message; correct the page"


def test_the_page_of_messages_is_read() -> None:
    assert len(quoted()) > 30


def test_messages_name_pages_that_exist() -> None:
    pages = {page for text in messages() for page in re.findall(r"\bdocs/[\w./-]+\.md", text)}
    assert sorted(page for page in pages if not (REPOSITORY / page).exists()) == []
