"""Combinations of levels in a prompt table, and permutations that follow from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.generation.prompts.table import PromptTable

Counts = NDArray[np.int64]


def cells_of(table: PromptTable, fields: Sequence[str]) -> tuple[Counts, Counts]:
    """Cell of each row, and levels (cells, fields) of each cell: its combination of levels."""
    if not fields:
        return np.zeros(len(table), np.int64), np.zeros((1, 0), np.int64)
    columns = np.stack([codes_of(table.labels[name]) for name in fields], axis=1)
    codes, cells = np.unique(columns, axis=0, return_inverse=True)
    return cells.reshape(-1), codes


def levels_of(column: Sequence[Any]) -> list[Any]:
    """The levels of a field, in the order in which they first occur; None where rows lack it."""
    return list(dict.fromkeys(column))


def codes_of(column: Sequence[Any]) -> Counts:
    """Number of the level of each row, in the order of `levels_of`."""
    numbers = {level: number for number, level in enumerate(levels_of(column))}
    return np.fromiter((numbers[value] for value in column), np.int64, len(column))


def ranks_of(count: int, seed: int) -> Counts:
    """A permutation of `count` numbers that depends on `seed` alone.

    By SplitMix64 (Steele et al., 2014), whose numbers are the same in every version of NumPy.
    """
    with np.errstate(over="ignore"):
        state = np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed % 2**32) * np.uint64(
            2**32
        )
        state *= np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    ranks = np.empty(count, np.int64)
    ranks[np.argsort(state, kind="stable")] = np.arange(count)
    return ranks
