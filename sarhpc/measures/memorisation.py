"""E11: which images repeat training tiles, by a limit that a chosen share of other tiles exceeds.

The evidence that an image is a copy is Fisher's z of its similarity to the nearest tile less the
mean of the next eight: what is common in an archive, such as streets, is similar to many tiles, a
copy to one. That mean counts at most as much as for any real tile, so that ten copies of one image
do not excuse each other. The limit is from real tiles and their nearest of other scenes: the
highest twentieth of their evidence follows an exponential law (Pickands, Ann. Stat. 3(1) 1975, of
shape 0), which gives the limit for rarer false alarms and for other numbers of tiles: that which a
further tile exceeds at the rate, on average over sets of tiles behind the limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from sarhpc.measures.ground_maps import Maps, fisher
from sarhpc.measures.map_search import MapIndex, Neighbours, descriptors
from sarhpc.measures.nulls import evenly_over_groups

LEAST_NULL, MOST_NULL = 40, 2000
"""Fewest real tiles that a limit can be from, and most that it is from."""
SURELY_NEAR = 1 / 3
"""Ratio of distances below which a copy is nearer than tiles are to each other (science: E11)."""
_TAIL, _LEAST_TAIL = 0.05, 20


@dataclass(frozen=True)
class CopyLimit:
    """What evidence real tiles of other scenes reach."""

    highest_cohort: float
    """Largest mean z of the eight tiles next to the nearest."""
    threshold: float
    """Evidence at which the tail begins."""
    scale: float
    """Mean evidence beyond it."""
    share: float
    """Share of tiles beyond it."""
    tiles: int
    """Real tiles that it is from."""
    searched: int
    """Tiles in which their neighbours were looked for."""

    def evidence(self, found: Neighbours) -> NDArray[np.float64]:
        """Evidence (N,) that queries are copies."""
        z = fisher(found.similarity)
        return np.asarray(z - np.minimum(found.cohort, self.highest_cohort), np.float64)

    def at(self, rate: float, searched: int | None = None) -> float:
        """Evidence that a share `rate` of other tiles exceeds, searched for in as many tiles.

        Raises:
            ValueError: the rate is no share.
        """
        if not 0 < rate < 1:
            raise ValueError(f"false alarms {rate:g}: give a share between 0 and 1")
        of_one = rate * self.searched / (searched or self.searched)
        # The next value of an exponential law whose scale is estimated follows Pareto's; a pair
        # that is nearest to each other is there twice.
        seen = max(self.share * self.tiles / 2, 1.0)
        rarer = max(self.share / of_one, 1.0)
        return float(self.threshold + self.scale * seen * (rarer ** (1 / seen) - 1))

    def to_json(self) -> dict[str, Any]:
        """The limit as an object of JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CopyLimit:
        """The limit that `to_json` wrote.

        Raises:
            ValueError: entries are missing or not finite.
        """
        try:
            found = cls(
                float(value["highest_cohort"]),
                float(value["threshold"]),
                float(value["scale"]),
                float(value["share"]),
                int(value["tiles"]),
                int(value["searched"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"limits on copies are damaged: {error!r}; calibrate again") from error
        ends = (found.highest_cohort, found.threshold, found.scale)
        if not all(map(math.isfinite, ends)) or found.scale <= 0 or not 0 < found.share <= 1:
            raise ValueError("limits on copies are not finite; calibrate again")
        return found


def copy_limit(null: Neighbours, searched: int) -> CopyLimit:
    """The limit from the neighbours of real tiles among `searched` tiles of other scenes.

    Raises:
        ValueError: fewer than 40 real tiles.
    """
    known = null.number >= 0
    count = int(known.sum())
    if count < LEAST_NULL:
        raise ValueError(
            f"{count} real tiles have neighbours of other scenes, and a limit needs {LEAST_NULL}"
        )
    highest = float(null.cohort[known].max())
    z = fisher(null.similarity[known]) - null.cohort[known]
    beyond = max(math.ceil(_TAIL * count), _LEAST_TAIL)
    ordered = np.sort(z)[::-1]
    threshold = float(ordered[beyond])
    scale = max(float(np.mean(ordered[:beyond] - threshold)), 1e-6)
    return CopyLimit(highest, threshold, scale, beyond / count, count, searched)


def group_numbers(groups: Sequence[str]) -> NDArray[np.int64]:
    """Number (N,) of the group of each tile, as a `MapIndex` takes them."""
    return np.unique(np.array(groups, str), return_inverse=True)[1].astype(np.int64)


def limit_of_index(index: MapIndex, groups: Sequence[str], workers: int = 1) -> CopyLimit:
    """The limit from at most 2,000 maps of an index, evenly over groups, among those of others.

    Args:
        index: of all training tiles, with the numbers of their groups.
        groups: flight line, else scene, of each.
        workers: threads.

    Raises:
        ValueError: as `copy_limit`.
    """
    drawn = evenly_over_groups(groups, min(MOST_NULL, len(index)))
    numbers = group_numbers(groups)[drawn]
    return copy_limit(index.nearest(index.maps[drawn], groups=numbers, workers=workers), len(index))


def share_interval(count: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a share of which `count` of `of` were seen (Clopper & Pearson, 1934)."""
    tail = (1 - confidence) / 2
    low = float(beta(count, of - count + 1).ppf(tail)) if count else 0.0
    high = float(beta(count + 1, of - count).ppf(1 - tail)) if count < of else 1.0
    return low, high


def distance(similarity: NDArray[Any]) -> NDArray[np.float64]:
    """Euclidean distance of two maps of unit norm of this correlation."""
    return np.sqrt(np.maximum(2 - 2 * np.asarray(similarity, np.float64), 0))


def vendi_score(maps: Maps) -> float:
    """Effective number of different maps among N: 1 where all are the same, N where none resemble.

    The exponential of the entropy of the eigenvalues of their correlations (Friedman & Dieng,
    TMLR 2023), without shifts; at most 120, the dimensions of a descriptor.

    Raises:
        ValueError: no maps.
    """
    if not len(maps):
        raise ValueError("no maps have no diversity: give at least one")
    D = descriptors(maps).astype(np.float64)
    values = np.linalg.eigvalsh(D.T @ D / len(D))
    share = values[values > 1e-12] / max(float(values.sum()), 1e-12)
    return float(np.exp(-np.sum(share * np.log(share))))
