"""`make test` sees every test there is, and `make check` imports what it has to once."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]


def test_no_folder_of_tests_has_a_name_that_pytest_passes_over(pytestconfig: pytest.Config) -> None:
    """`dist` and `build` are such names, and nothing would say that their tests never ran."""
    patterns = pytestconfig.getini("norecursedirs")
    assert "dist" in patterns
    folders = {file.parent for file in TESTS.rglob("test_*.py")}
    names = {part for folder in folders for part in folder.relative_to(TESTS).parts}
    assert {"unit", "ranks", "slurm", "chaos", "e2e", "golden"} <= names
    assert [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)] == []


def test_one_half_of_the_fast_tests_imports_no_library_of_models() -> None:
    """`make check` runs the folders of MODELS in one process and the others in another."""
    makefile = (TESTS.parent / "Makefile").read_text()
    [folders] = re.findall(r"^MODELS := .*,(.*)\)$", makefile, re.MULTILINE)
    heavy = re.compile(r"^(?:import|from) (torch|diffusers|transformers|peft)\b", re.MULTILINE)
    guilty = [
        path.relative_to(TESTS).as_posix()
        for path in (TESTS / "unit").rglob("test_*.py")
        if path.parent.name not in folders.split() and heavy.search(path.read_text())
    ]
    assert guilty == [], "import it in the test, or add the folder to MODELS"
