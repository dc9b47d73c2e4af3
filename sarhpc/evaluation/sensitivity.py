"""Which measures see which defects, on the real tiles of an archive.

Every tile is given each defect. A draw compares N tiles with a defect, of some scenes, with M real
tiles of other scenes, as the null compares N real ones with the same. How often the distance lies
beyond the null is the power of the measure; without a defect, the rate of false alarms.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.measures import defects
from sarhpc.measures.distances import DISTANCES
from sarhpc.measures.features import Features, measure
from sarhpc.measures.nulls import Null, draw_null

Tiles = Sequence[NDArray[Any]]

FAMILY_ERROR = 0.05
"""Probability of any false alarm among all measures of a set."""
DRAWS = 1999
"""A quantile of 1 - 0.05 / 12 is then the 9th largest of the draws."""
POWER_DRAWS = 100
NONE = "none"


@dataclass(frozen=True)
class Sensitivity:
    """Powers of measures by defect."""

    seen: Mapping[str, Mapping[str, float]]
    """Defect -> key of the distance -> share of draws beyond the null."""
    false_alarms: float
    """Share of draws without a defect in which any distance is beyond its null."""
    tiles: int
    reference_tiles: int
    groups: int
    groups_drawn: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The table in Markdown: a row a defect, a column a measure."""
        names = list(next(iter(self.seen.values())))
        rows = [["defect", *(name.replace("_", " ") for name in names)], ["---"] * (1 + len(names))]
        rows += [[defect, *(f"{of[n]:.2f}" for n in names)] for defect, of in self.seen.items()]
        return [f"| {' | '.join(row)} |" for row in rows]


def made_defects(tiles: Tiles, seed: int = 0) -> dict[str, Callable[[NDArray[Any]], NDArray[Any]]]:
    """Name -> the defect as a function of a tile; the mean level is that of all `tiles`.

    Functions that draw random numbers are to be called once a tile, in the order of the tiles.
    """
    rng = np.random.default_rng(seed)
    power = np.mean([np.log10(np.square(A, dtype=float).mean()) for A in tiles])
    return {
        NONE: lambda A: A,
        "gain of 1 dB": lambda A: defects.gained(A, 1.0),
        "range flip": lambda A: np.ascontiguousarray(A[:, ::-1]),
        "azimuth flip": lambda A: np.ascontiguousarray(A[::-1]),
        "rotation by 90 degrees": lambda A: np.ascontiguousarray(np.rot90(A)),
        "blur of 0.6 px": defects.blurred,
        "8 x 8 shuffle": lambda A: defects.shuffled(A, rng),
        "white re-speckle": lambda A: defects.respeckled(A, rng),
        "grid lines of 0.5 dB": lambda A: defects.gridded(A, 0.5),
        "targets 10 dB lower": defects.dimmed_targets,
        "one mean level": lambda A: defects.levelled(A, 10.0 * power),
    }


def sensitivity(
    tiles: Tiles, groups: Sequence[Hashable], compared: int = 40, draws: int = DRAWS, seed: int = 0
) -> Sensitivity:
    """Powers of all distances against each defect of real tiles.

    Args:
        tiles: T tiles of linear amplitude (H, W), square, sides multiples of 8 px.
        groups: flight line, else scene, of each tile.
        compared: N, tiles on each side of a comparison.
        draws: of the null.
        seed: of defects and draws.

    Raises:
        TooFewGroupsError: fewer than 8 groups, or not N tiles in each half of them.
        ValueError: a tile that cannot be measured, or is not square with sides of 8 px.
    """
    for number, tile in enumerate(tiles):
        if tile.ndim != 2 or tile.shape[0] != tile.shape[1] or tile.shape[0] % 8:
            raise ValueError(f"tile {number} is {tile.shape}: give squares with sides of 8 n px")
    real = measure(tiles)
    null = draw_null(real, groups, compared, compared, draws=draws, seed=seed)
    bounds = {
        name: float(np.quantile(null.distances(entry[0]), 1 - FAMILY_ERROR / len(DISTANCES)))
        for name, entry in DISTANCES.items()
    }
    seen, alarms = {}, 0.0
    for defect, spoil in made_defects(tiles, seed).items():
        found = real if defect == NONE else measure([spoil(tile) for tile in tiles])
        beyond = _beyond(null, found, bounds)
        seen[defect] = {name: float(of.mean()) for name, of in beyond.items()}
        if defect == NONE:
            alarms = float(np.any(list(beyond.values()), axis=0).mean())
    return Sensitivity(seen, alarms, compared, compared, null.groups, null.groups_drawn)


def _beyond(
    null: Null, found: Features, bounds: Mapping[str, float]
) -> dict[str, NDArray[np.bool_]]:
    """(draws,) whether each distance is beyond its bound, for the first draws of the null."""
    pairs = list(zip(null.drawn[:POWER_DRAWS], null.others[:POWER_DRAWS], strict=True))
    return {
        name: np.array(
            [
                DISTANCES[name][0](found, ours, null.features, theirs) > bound
                for ours, theirs in pairs
            ]
        )
        for name, bound in bounds.items()
    }
