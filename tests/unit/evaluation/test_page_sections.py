from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jinja2 import ChoiceLoader, DictLoader

from sarhpc.evaluation.page import page_environment
from sarhpc.evaluation.page_sections import SECTIONS, Section, make_sections

BLOCK = {"pairs": [{"key": "<script>alert(1)</script>"}]}
TEMPLATE = "{% for pair in pairs %}<h3>{{ pair.key }}</h3>{% endfor %}"


def sections(
    patch: pytest.MonkeyPatch, blocks: Mapping[str, Any], made: Any, template: str = TEMPLATE
) -> list[Section]:
    """The sections where `made` is the function of the module of `memory`."""
    module = types.ModuleType("sarhpc.evaluation.page_memory")
    module.section = made  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "sarhpc.evaluation.page_memory", module)
    environment = page_environment()
    assert environment.loader is not None
    loader = ChoiceLoader([DictLoader({"page_memory.html.j2": template}), environment.loader])
    return list(make_sections(blocks, Path("evaluate"), environment.overlay(loader=loader)))


def test_a_section_shows_its_block_and_escapes_what_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [made] = sections(monkeypatch, {"memory": BLOCK}, lambda block, folder: block)
    assert made.body == "<h3>&lt;script&gt;alert(1)&lt;/script&gt;</h3>"


def test_without_a_block_there_is_no_section(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not sections(monkeypatch, {}, lambda block, folder: block)
    assert not sections(monkeypatch, {"other": BLOCK}, lambda block, folder: block)


@pytest.mark.parametrize("template", [TEMPLATE, "{{ missing.value }}"])
def test_a_section_that_fails_says_why_in_its_place(
    monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    def _made(block: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        if template == TEMPLATE:
            raise FileNotFoundError(f"{folder}/pair.png")
        return {}

    [failed] = sections(monkeypatch, {"memory": BLOCK}, _made, template)
    assert (failed.title, failed.body) == ("Copies and near copies (E11)", "")
    assert failed.fault.startswith(("FileNotFoundError: evaluate/pair.png", "UndefinedError"))


def test_a_section_may_have_a_sentence_for_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("sarhpc.evaluation.page_memory")
    module.section = lambda block, folder: block  # type: ignore[attr-defined]
    module.sentence = lambda block, judged: f"{judged} has copies"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sarhpc.evaluation.page_memory", module)
    environment = page_environment()
    environment = environment.overlay(loader=DictLoader({"page_memory.html.j2": TEMPLATE}))
    [made] = make_sections({"memory": BLOCK}, Path(), environment, "this run")
    assert made.sentence == "this run has copies"


def test_names_of_sections_are_names_of_modules() -> None:
    assert all(spec.name.isidentifier() for spec in SECTIONS)
