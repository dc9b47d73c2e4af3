"""The sources of the packages and their syntax trees, each parsed once in a test process."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCES = tuple(
    path for package in ("hpc", "sarhpc") for path in sorted((REPOSITORY / package).rglob("*.py"))
)


def place(path: Path) -> str:
    """A path as tests name it: below the repository."""
    return path.relative_to(REPOSITORY).as_posix()


@functools.cache
def syntax_tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text())


@functools.cache
def syntax_nodes(path: Path) -> tuple[ast.AST, ...]:
    """Every node of the syntax tree of a file, expression contexts and operators excepted."""
    skipped = (ast.expr_context, ast.operator, ast.cmpop, ast.unaryop, ast.boolop)
    return tuple(node for node in ast.walk(syntax_tree(path)) if not isinstance(node, skipped))
