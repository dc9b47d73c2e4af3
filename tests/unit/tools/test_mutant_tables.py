"""The tables of `make test-mutants` speak of modules, tests and lines that are there."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
TABLES = REPOSITORY / "tests" / "mutants"
MODULES = tomllib.loads((TABLES / "modules.toml").read_text())
EQUIVALENT = tomllib.loads((TABLES / "equivalent.toml").read_text()).get("mutant", [])


def test_at_least_25_modules_are_changed() -> None:
    assert len(MODULES) >= 25


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_their_tests_exist(module: str) -> None:
    assert (REPOSITORY / module).is_file()
    assert MODULES[module]
    for test in MODULES[module]:
        assert (REPOSITORY / test).is_file(), f"{module} names {test}"


def test_equivalents_are_of_lines_that_are_there_and_say_why() -> None:
    for one in EQUIVALENT:
        assert set(one) == {"module", "was", "becomes", "why"}
        lines = [line.strip() for line in (REPOSITORY / one["module"]).read_text().splitlines()]
        assert one["was"] in lines, f"{one['module']} no longer has: {one['was']}"
        assert one["becomes"] != one["was"]
        assert one["why"]
