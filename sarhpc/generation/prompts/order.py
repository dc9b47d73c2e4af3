"""The order in which the images of a corpus are made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sarhpc.generation.prompts.cells import Counts, cells_of, ranks_of
from sarhpc.generation.prompts.table import PromptTable


def image_order(
    table: PromptTable, counts: Counts, fields: Sequence[str], seed: int
) -> tuple[Counts, Counts]:
    """Row and repetition of each image, in order; any part of the corpus covers the fields alike.

    The images of each combination of levels are spread evenly over the corpus, and so are those of
    each row within them. It depends on table and seed alone.
    """
    cells, _ = cells_of(table, fields)
    rows = np.repeat(np.arange(len(table)), counts)
    repetition = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    ranks = ranks_of(len(table), seed)
    offset = (ranks[rows] + 0.5) / max(len(table), 1)
    within = (repetition + offset) / counts[rows]
    order = np.lexsort((ranks[rows], within, cells[rows]))
    rows, repetition = rows[order], repetition[order]
    sizes = np.bincount(cells[rows], minlength=int(cells.max()) + 1)
    first = np.cumsum(sizes) - sizes
    number = np.arange(len(rows)) - first[cells[rows]]
    shift = (ranks_of(len(sizes), seed + 1) + 0.5) / len(sizes)
    position = (number + shift[cells[rows]]) / sizes[cells[rows]]
    order = np.lexsort((cells[rows], position))
    return rows[order], repetition[order]
