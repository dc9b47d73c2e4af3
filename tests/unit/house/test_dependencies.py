"""What is imported is declared, and what is declared is imported, each in the smallest extra."""

from __future__ import annotations

import ast
import itertools
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from source_trees import REPOSITORY, SOURCES, place, syntax_nodes

from sarhpc.extras import CHAIN, EXTRA_OF

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = {"PIL": "pillow", "faiss": "faiss-cpu", "yaml": "pyyaml"}
"""Module -> package, where they are called differently."""
BY_OTHERS = {
    "accelerate": "diffusers loads weights through it",
}
"""Declared, and imported by another package for this project's sake."""


def names(requirements: list[str]) -> set[str]:
    found = (re.match(r"[\w-]+(\[\w+\])?", text) for text in requirements)
    return {match[0].lower().replace("_", "-") for match in found if match}


def imported_modules() -> dict[str, str]:
    """Each module of others that the packages import -> one of the files that do."""
    found: dict[str, str] = {}
    for path in SOURCES:
        for name in modules_of(path):
            if name not in sys.stdlib_module_names and name not in ("hpc", "sarhpc"):
                found[name] = place(path)
    return found


def modules_of(path: Path) -> Iterator[str]:
    for node in syntax_nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module).partition(".")[0]


def package_of(module: str) -> str:
    return DISTRIBUTIONS.get(module, module).lower().replace("_", "-")


def declared() -> dict[str, set[str]]:
    """Extra -> its own packages; "" for those that every installation has."""
    extras = {name: names(items) for name, items in PROJECT["optional-dependencies"].items()}
    for of_the_checkout in ("dev", "docs"):
        extras.pop(of_the_checkout)
    own = {name: {item for item in items if "[" not in item} for name, items in extras.items()}
    return {"": names(PROJECT["dependencies"]), **own}


def test_what_is_imported_is_declared() -> None:
    """`affine`, `cloudpickle`, `huggingface_hub` and `lxml` came along with other packages."""
    known = set().union(*declared().values())
    assert {m: f for m, f in imported_modules().items() if package_of(m) not in known} == {}


def test_what_is_declared_is_imported() -> None:
    """`dask-jobqueue` and `webdataset` were installed everywhere and used nowhere."""
    used = {package_of(module) for module in imported_modules()}
    idle = set().union(*declared().values()) - used - set(BY_OTHERS)
    assert idle == set()


def test_errors_name_the_extra_that_brings_a_package() -> None:
    extras = {name: items for name, items in declared().items() if name}
    assert {
        package_of(module): extra for module, extra in EXTRA_OF.items()
    } == {package: extra for extra, items in extras.items() for package in items}  # fmt: skip


def test_each_extra_holds_the_one_before() -> None:
    for held, extra in itertools.pairwise(CHAIN):
        assert f"sarhpc[{held}]" in names(PROJECT["optional-dependencies"][extra])


def test_the_distribution_says_what_it_is() -> None:
    citation = (REPOSITORY / "CITATION.cff").read_text()
    assert f"version: {PROJECT['version']}" in citation
    assert f"license: {PROJECT['license']}" in citation
    assert (REPOSITORY / "LICENSE").read_text().lstrip().startswith("Apache License")
    assert all((REPOSITORY / name / "py.typed").exists() for name in ("hpc", "sarhpc"))
