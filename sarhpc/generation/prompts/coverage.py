"""How many images each row of a prompt table gets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hpc.errors import ConfigError
from sarhpc.generation.prompts.cells import Counts, cells_of, codes_of, levels_of, ranks_of
from sarhpc.generation.prompts.config import PromptTableConfig
from sarhpc.generation.prompts.table import PromptTable

COVERAGES = ("weighted", "balanced", "latin_hypercube")
MOST_CELLS = 20_000
"""Combinations of levels that are balanced: an identifier of each row is none to cover."""


def covered_fields(table: PromptTable, cfg: PromptTableConfig, default: Sequence[str]) -> list[str]:
    """The fields that are covered: `cfg.by`, or those of `default` that the table has.

    Raises:
        ConfigError: a field is no label of the table, or nothing is to be balanced.
    """
    unknown = [name for name in cfg.by if name not in table.labels]
    if unknown:
        known = ", ".join(table.labels) or "none"
        raise ConfigError(f"by: {table.source} has no label {unknown[0]}; its labels are: {known}")
    fields = list(cfg.by) or [name for name in default if name in table.labels]
    if cfg.coverage != "weighted" and not fields:
        known = ", ".join(table.labels) or "none"
        raise ConfigError(
            f"by: name the labels of {table.source} that coverage={cfg.coverage} is about; its "
            f"labels are: {known}"
        )
    return fields


def image_counts(
    table: PromptTable, cfg: PromptTableConfig, fields: Sequence[str], total: int, seed: int
) -> Counts:
    """Images of each row, in all `total`.

    Raises:
        ConfigError: `max_per_prompt` leaves too few, or a combination of levels has no row.
    """
    limits = _row_limits(table, cfg.max_per_prompt)
    rank = ranks_of(len(table), seed)
    if cfg.coverage == "weighted":
        return _weighted(table, fields, limits, rank, total)
    cells, codes = cells_of(table, fields)
    if len(codes) > MOST_CELLS:
        raise ConfigError(
            f"by: {', '.join(fields)} of {table.source} have {len(codes):,} combinations of "
            f"levels, and at most {MOST_CELLS:,} are covered: name fewer fields"
        )
    if cfg.coverage == "balanced":
        wanted = _balanced(codes, total, seed)
    else:
        wanted = _latin_hypercube(table, fields, codes, total, seed)
    return _within_cells(table, fields, cells, codes, wanted, limits, rank)


def _row_limits(table: PromptTable, most: int | None) -> Counts:
    """Most images of each row: rows of one prompt share what it may have."""
    limits = np.full(len(table), np.iinfo(np.int64).max // 2, np.int64)
    if most is None:
        return limits
    if len(table.seeds) + len(table.negatives) == 0:
        return np.full(len(table), most, np.int64)
    groups = codes_of(table.prompts)
    sharing = np.bincount(groups)
    tight = np.flatnonzero(sharing[groups] > most)
    if len(tight):
        row = int(tight[0])
        raise ConfigError(
            f"max_per_prompt is {most}, and {int(sharing[groups[row]])} rows have the prompt of "
            f"{table.where(row)}: raise it"
        )
    return (most // sharing[groups]).astype(np.int64)


def _weighted(
    table: PromptTable, fields: Sequence[str], limits: Counts, rank: Counts, total: int
) -> Counts:
    weights = np.frombuffer(table.weights, np.float64)
    if table.counted:
        counts = weights.astype(np.int64)
        over = np.flatnonzero(counts > limits)
        if len(over):
            row = int(over[0])
            raise ConfigError(
                f"{table.where(row)}: count is {counts[row]}, and max_per_prompt allows "
                f"{limits[row]} images of its prompt"
            )
        return counts
    limits = np.where(weights > 0, np.minimum(limits, total), 0)
    if limits.sum() < total:
        raise ConfigError(
            f"max_per_prompt: {total:,} images are asked for and the {np.count_nonzero(weights):,} "
            f"prompts of {table.source} allow {limits.sum():,}; raise it, or add prompts"
        )
    cells, codes = cells_of(table, fields)
    if len(codes) > MOST_CELLS:
        codes, cells = codes[:1, :0], np.zeros(len(table), np.int64)
    # Scaled: sums of the largest floats would overflow, the smallest remain above 0.
    scaled = np.where(weights > 0, np.maximum(weights / weights.max(), 1e-300), 0.0)
    return _proportional(codes[cells], scaled, total, limits, rank)


def _proportional(
    levels: Counts, weights: NDArray[np.float64], total: int, limits: Counts, rank: Counts
) -> Counts:
    """Images of each row: `total` divided by the weights of the levels, one field after the other.

    `levels` (rows, fields) has the level of each row.
    """
    counts = np.zeros(len(weights), np.int64)

    def divide(rows: Counts, images: int, depth: int) -> None:
        """Divide `images` over `rows` by the levels of the fields from `depth` on."""
        if depth == levels.shape[1]:
            counts[rows] = apportioned(weights[rows], images, limits[rows], rank[rows])
            return
        _, level = np.unique(levels[rows, depth], return_inverse=True)
        room = np.bincount(level, limits[rows]).astype(np.int64)
        sums = np.bincount(level, weights[rows]).astype(np.float64)
        shares = apportioned(sums, images, room, np.arange(len(room)))
        for number, share in enumerate(shares.tolist()):
            divide(rows[level == number], share, depth + 1)

    divide(np.arange(len(weights)), total, 0)
    return counts


def apportioned(weights: NDArray[np.float64], total: int, limits: Counts, rank: Counts) -> Counts:
    """`total` divided in proportion to `weights` by largest remainders, none above its limit.

    What a limit cuts off goes to the others in proportion. `rank` decides ties.
    """
    counts = np.zeros(len(weights), np.int64)
    free = weights > 0
    left = total
    while left > 0:
        # Scaled first: the largest float does not overflow in the sum.
        scaled = np.where(free, weights / weights[free].max(), 0.0)
        share = left * (scaled / scaled.sum())
        room = limits - counts
        over = free & (share >= room)
        if over.any():
            counts[over] += room[over]
            left -= int(room[over].sum())
            free &= ~over
            continue
        whole = np.floor(share).astype(np.int64)
        rest = left - int(whole.sum())
        order = np.lexsort((rank, -(share - whole)))
        order = order[free[order]]
        counts += whole
        counts[order[:rest]] += 1
        break
    return counts


def _balanced(codes: Counts, total: int, seed: int) -> Counts:
    """Images of each cell: `total` divided over the levels of the first field, and so on.

    Where all combinations exist the counts of levels differ by one at most, and those of cells too:
    what is left over goes to the levels of a field in turn, throughout the table.
    """
    wanted = np.zeros(len(codes), np.int64)
    turns = [0] * codes.shape[1]

    def divide(cells: Counts, images: int, depth: int) -> None:
        """Divide `images` over `cells` by the levels of the fields from `depth` on."""
        if depth == codes.shape[1]:
            wanted[cells] = images
            return
        levels = np.unique(codes[cells, depth])
        levels = levels[np.argsort(ranks_of(int(codes[:, depth].max()) + 1, seed + depth)[levels])]
        whole, rest = divmod(images, len(levels))
        start = turns[depth] % len(levels)
        turns[depth] += rest
        for number, level in enumerate(levels):
            extra = (number - start) % len(levels) < rest
            divide(cells[codes[cells, depth] == level], whole + int(extra), depth + 1)

    divide(np.arange(len(codes)), total, 0)
    return wanted


def _latin_hypercube(
    table: PromptTable, fields: Sequence[str], codes: Counts, total: int, seed: int
) -> Counts:
    """Images of each cell: the levels of each field equally often, in independent random orders."""
    drawn = np.empty((total, codes.shape[1]), np.int64)
    for column in range(codes.shape[1]):
        count = int(codes[:, column].max()) + 1
        levels = np.argsort(ranks_of(count, seed + 101 + column))
        strata = levels[np.arange(total) % count]
        drawn[:, column] = strata[np.argsort(ranks_of(total, seed + 211 + column))]
    cells = {tuple(levels): cell for cell, levels in enumerate(codes.tolist())}
    wanted = np.zeros(len(codes), np.int64)
    chosen, images = np.unique(drawn, axis=0, return_counts=True)
    for levels, count in zip(chosen.tolist(), images.tolist(), strict=True):
        if tuple(levels) not in cells:
            names = _level_names(table, fields, levels)
            raise ConfigError(
                f"coverage=latin_hypercube combines all levels of {', '.join(fields)}, and "
                f"{table.source} has no row with {names}; add it, take coverage=balanced, or name "
                "fewer fields in `by`"
            )
        wanted[cells[tuple(levels)]] = count
    return wanted


def _within_cells(
    table: PromptTable,
    fields: Sequence[str],
    cells: Counts,
    codes: Counts,
    wanted: Counts,
    limits: Counts,
    rank: Counts,
) -> Counts:
    """Images of each row: those of its cell, divided equally."""
    counts = np.zeros(len(table), np.int64)
    order = np.argsort(cells, kind="stable")
    ends = np.cumsum(np.bincount(cells, minlength=len(codes)))
    for cell, rows in enumerate(np.split(order, ends[:-1])):
        images = int(wanted[cell])
        capacity = int(np.minimum(limits[rows], images).sum())
        if capacity < images:
            raise ConfigError(
                f"max_per_prompt: {images:,} images of {_level_names(table, fields, codes[cell])} "
                f"are planned and its {len(rows)} prompts allow {capacity:,}; raise it, add "
                "prompts, or generate fewer images"
            )
        counts[rows] = apportioned(np.ones(len(rows)), images, limits[rows], rank[rows])
    return counts


def _level_names(table: PromptTable, fields: Sequence[str], levels: Sequence[int]) -> str:
    named = (
        f"{name}={levels_of(table.labels[name])[code]}"
        for name, code in zip(fields, levels, strict=True)
    )
    return " ".join(named)
