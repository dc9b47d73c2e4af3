"""Candidates among many maps of the ground by an inverted file of Faiss, instead of all products.

Descriptors of tiles are parted by k-means; a view of a query, which is the query moved and maybe
flipped, is compared with those of the parts nearest to it. The best over all views are the
candidates, which `MapIndex` then correlates as it does those of exact products. A copy whose
descriptor lies in none of the parts that are searched is missed: how many are, measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_TILES = 5000
"""Fewest tiles of which parts are made: exact products of fewer cost little."""
LIST_TILES = 100
"""Tiles of a part on average."""
PROBES = 16
"""Parts in which a view of a query is looked for."""
A_VIEW = 8
"""Best tiles that are taken of each view."""

_TRAINED = 40
"""Tiles of each part that k-means learns from, at most."""
_ROUNDS = 8


class Shortlist:
    """Finds tiles that may be those of queries.

    Args:
        descriptors: unit vectors (N, D) of the tiles.
        seed: of k-means.
    """

    def __init__(self, descriptors: NDArray[np.float32], seed: int = 0) -> None:
        import faiss

        faiss.omp_set_num_threads(1)  # of this thread
        count, width = descriptors.shape
        lists = max(count // LIST_TILES, 1)
        self._index: Any = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT
        )
        self._index.cp.niter, self._index.cp.seed = _ROUNDS, seed
        self._index.cp.max_points_per_centroid = _TRAINED
        self._index.cp.spherical = True
        self._index.train(descriptors)
        self._index.add(descriptors)
        self._index.nprobe = min(PROBES, lists)

    def best(
        self, views: Sequence[NDArray[np.float32]], most: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Score (Q, k) and number (Q, k) of at most `most` tiles; -inf where there are fewer.

        Args:
            views: each unit vectors (Q, D) of the queries.
            most: tiles.
        """
        import faiss

        faiss.omp_set_num_threads(1)  # threads have blocks of queries of their own
        count = len(views[0])
        scores = np.empty((count, len(views), A_VIEW), np.float32)
        numbers = np.empty((count, len(views), A_VIEW), np.int64)
        for place, view in enumerate(views):
            scores[:, place], numbers[:, place] = self._index.search(view, A_VIEW)
        score, number = _ordered(scores.reshape(count, -1), numbers.reshape(count, -1))
        # Views of a query find the same tile several times: its best place is kept.
        found = np.argsort(number, axis=1, kind="stable")
        of_tiles = np.take_along_axis(number, found, 1)
        again = np.zeros(number.shape, np.bool_)
        again[:, 1:] = of_tiles[:, 1:] == of_tiles[:, :-1]
        repeated = np.empty_like(again)
        np.put_along_axis(repeated, found, again, 1)
        score = np.where(repeated | (number < 0), np.float32(-np.inf), score)
        score, number = _ordered(score, number)
        return score[:, :most], number[:, :most]


def _ordered(
    score: NDArray[np.float32], number: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Both from the best score of each row on."""
    order = np.argsort(-score, axis=1, kind="stable")
    return np.take_along_axis(score, order, 1), np.take_along_axis(number, order, 1)
