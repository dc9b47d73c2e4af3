"""Files that someone else wrote are opened in one place each, where they are bounded."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator

import pytest
from source_trees import SOURCES, place, syntax_nodes

OPENERS = {
    "rasterio.open": None,
    "DatasetReader": "sarhpc/archive/opening.py",
    "h5py.File": "sarhpc/archive/opening.py",
    "Image.open": "sarhpc/shards/pictures.py",
    "PIL.Image.open": "sarhpc/shards/pictures.py",
    "tarfile.open": None,
    "yaml.load": "hpc/frozen_config.py",
    "OmegaConf.load": None,
    "pickle.load": None,
    "pickle.loads": None,
}
"""Call -> the only module that may contain it; None for no module at all."""


def calls(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Calls of a module by the name they are written with, and names imported from a module."""
    for node in nodes:
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def calls_by_module() -> dict[str, set[str]]:
    """What each module calls or imports by name."""
    return {place(path): {*calls(syntax_nodes(path))} for path in SOURCES}


@pytest.mark.parametrize(("call", "owner"), OPENERS.items())
def test_a_file_is_opened_by_the_module_that_bounds_it(call: str, owner: str | None) -> None:
    found = {module for module, called in calls_by_module().items() if call in called}
    assert found == ({owner} if owner is not None and owner in found else set())


def test_a_further_call_would_be_seen() -> None:
    for source in ("import rasterio\nrasterio.open('a')", "from rasterio import open"):
        assert "rasterio.open" in calls(ast.walk(ast.parse(source)))
