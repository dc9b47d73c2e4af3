"""Kinds of changes that Cosmic Ray lacks: dropped calls, swapped pairs, min for max.

Imported by `mutants.py` alone, inside the virtual environment that has Cosmic Ray.
"""

from __future__ import annotations

from collections.abc import Iterator

import parso
from cosmic_ray.operators.operator import Example, Operator
from parso.tree import NodeOrLeaf

Position = tuple[tuple[int, int], tuple[int, int]]

_OPPOSITES = {"min": "max", "any": "all", "floor": "ceil"}
_OPPOSITES |= {other: name for name, other in _OPPOSITES.items()}
_UNORDERED = ("isinstance", "issubclass", "min", "max", "array_equal", "hypot")
"""Calls that mean the same with their two arguments swapped."""


def _is_call(node: NodeOrLeaf) -> bool:
    last = node.children[-1] if node.type in ("atom_expr", "power") else None
    return last is not None and last.type == "trailer" and last.children[0].value == "("


class DropCall(Operator):
    """Leave out a call whose value nobody uses, such as a sync, a removal or a check."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[Position]:
        """The call, in a statement that consists of it."""
        if node.type == "simple_stmt" and _is_call(node.children[0]):
            yield node.children[0].start_pos, node.children[0].end_pos

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        """The statement with `pass` instead."""
        prefix = node.children[0].get_first_leaf().prefix
        node.children[0] = parso.parse(f"{prefix}pass")
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """What it does."""
        return (Example("os.fsync(f)\n", "pass\n"),)


class SwapOpposite(Operator):
    """Call min for max, any for all, floor for ceil, and the other way round."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[Position]:
        """The name that is called."""
        if node.type == "name" and node.value in _OPPOSITES and node.parent.type != "funcdef":
            following = node.get_next_leaf()
            if following is not None and following.value == "(":
                yield node.start_pos, node.end_pos

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        """The opposite name."""
        return parso.python.tree.Name(_OPPOSITES[node.value], node.start_pos, node.prefix)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """What it does."""
        return (Example("max(a, b)", "min(a, b)"), Example("np.floor(a)", "np.ceil(a)"))


class SwapPair(Operator):
    """Swap the two positional arguments of a call, or the two items of a tuple."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[Position]:
        """Both, with what stands between."""
        if node.type not in ("arglist", "testlist_comp", "testlist_star_expr"):
            return
        first, comma, second = (*node.children, None, None)[:3]
        count = len([child for child in node.children if getattr(child, "value", "") != ","])
        if count != 2 or comma is None or getattr(comma, "value", "") != ",":
            return
        # Of two kinds of expressions, such as a name and a call, a swap mostly ends in a TypeError.
        plain = first.type == second.type and first.type not in ("argument", "sync_comp_for")
        same = first.get_code(include_prefix=False) == second.get_code(include_prefix=False)
        if plain and not same and not _is_unordered(node):
            yield first.start_pos, second.end_pos

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        """The two in the other order."""
        first, second = node.children[0], node.children[2]
        before, between = first.get_first_leaf().prefix, second.get_first_leaf().prefix
        node.children[0] = parso.parse(before + second.get_code(include_prefix=False))
        node.children[2] = parso.parse(between + first.get_code(include_prefix=False))
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """What it does."""
        return (Example("f(a, b)", "f(b, a)"), Example("x = (1, y)", "x = (y, 1)"))


def _is_unordered(node: NodeOrLeaf) -> bool:
    """Whether the order of the two means nothing: members of a set, types, operands of max."""
    bracket, word = _opening(node)
    if word in ("in", "except", *_UNORDERED) or bracket == "{":
        return True
    arguments = node.parent.parent  # of a tuple of types: isinstance(value, (A, B))
    return arguments.type == "arglist" and _opening(arguments)[1] in ("isinstance", "issubclass")


def _opening(node: NodeOrLeaf) -> tuple[str, str]:
    """The bracket before a node, and the word before that."""
    bracket = node.get_first_leaf().get_previous_leaf()
    before = None if bracket is None else bracket.get_previous_leaf()
    return getattr(bracket, "value", ""), getattr(before, "value", "")


class Provider:
    """The operators of this file, by name, as Cosmic Ray asks for them."""

    _operators = {one.__name__: one for one in (DropCall, SwapOpposite, SwapPair)}  # noqa: RUF012

    def __iter__(self) -> Iterator[str]:
        return iter(self._operators)

    def __getitem__(self, name: str) -> type[Operator]:
        return self._operators[name]
