"""`make test` sees every test there is."""

from __future__ import annotations

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
