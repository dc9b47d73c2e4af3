"""Limits of the gate of single images, from real held-out tiles at a chosen rate of false rejects.

Each of T one-sided tests has rate a / T, and its limit is the order statistic of rank
ceil((n + 1)(1 - a / T)) of n real tiles (conformal prediction: Vovk, Gammerman & Shafer,
Algorithmic Learning in a Random World, 2005). A further real tile, exchangeable with these, is then
rejected with probability a or less, whatever the laws of the values, by all tests together.

That is the mean over sets of n tiles; one set has another rate. With r tiles beyond each limit, in
regions that do not overlap, the rate has the law Beta(T r, n + 1 - T r) (Tukey, Ann. Math. Stat.
18(4) 1947); where they overlap it is lower. Tiles of one scene are not independent and tell less.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from sarhpc.measures.image_defects import (
    COLOUR,
    CORRELATION,
    FINE_POWER,
    GRID,
    LEVEL,
    LOOKS,
    SATURATED,
    UNITS,
    measure_image,
)
from sarhpc.measures.near_duplicates import Code, chance_distance, nearest, scene_code

SCHEMA = "sarhpc.image_gate/1"
LOWER = (FINE_POWER, CORRELATION, LEVEL)
UPPER = (SATURATED, GRID, LEVEL, LOOKS, COLOUR)
WIDEST_STRICT = {SATURATED: 1e-3, COLOUR: 0.5 / 255}
"""Upper limits that are never lower: what no one calls saturated, and rounding to 8 bits."""


@dataclass(frozen=True)
class GateLimits:
    """What an image must keep to, and where that is from."""

    low: Mapping[str, float]
    """Value -> lower limit, by the names of `image_defects.UNITS`."""
    high: Mapping[str, float]
    """Value -> upper limit; without `colour` if no channels were given."""
    duplicate_bits: int
    """Bits by which a near duplicate differs from another image, or fewer."""
    rate: float
    """Share of real tiles that all tests together may reject."""
    tiles: int
    """Real tiles that the limits are from."""
    corpus_size: int
    """Images among which duplicates are looked for, at most."""
    least_px: int
    """Shortest side of the tiles: smaller images spread more and cannot be held to these limits."""

    @property
    def tests(self) -> int:
        """Number of one-sided tests that share the rate."""
        return len(self.low) + len(self.high) + 1

    def rate_interval(self, confidence: float = 0.9) -> tuple[float, float]:
        """Where the true rate of false rejects lies, if no two tests reject the same tiles."""
        beyond = self.tests * (self.tiles + 1 - rank(self.tiles, self.rate, self.tests))
        law = beta(beyond, self.tiles + 1 - beyond)
        return float(law.ppf((1 - confidence) / 2)), float(law.ppf((1 + confidence) / 2))

    def to_json(self) -> dict[str, Any]:
        """The limits as an object of JSON."""
        low, high = self.rate_interval()
        return {
            "schema": SCHEMA,
            "rate": self.rate,
            "rate_interval_90": [low, high],
            "tiles": self.tiles,
            "tests": self.tests,
            "corpus_size": self.corpus_size,
            "least_px": self.least_px,
            "low": dict(self.low),
            "high": dict(self.high),
            "duplicate_bits": self.duplicate_bits,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> GateLimits:
        """The limits that `to_json` wrote.

        Raises:
            ValueError: another schema, or entries that are missing or damaged.
        """
        if value.get("schema") != SCHEMA:
            raise ValueError(f"gate limits have schema {value.get('schema')!r}, not {SCHEMA!r}")
        try:
            limits = cls(
                {str(name): float(limit) for name, limit in value["low"].items()},
                {str(name): float(limit) for name, limit in value["high"].items()},
                int(value["duplicate_bits"]),
                float(value["rate"]),
                int(value["tiles"]),
                int(value["corpus_size"]),
                int(value["least_px"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"gate limits are damaged: {error!r}; calibrate again") from error
        ends = [*limits.low.values(), *limits.high.values()]
        if not {*limits.low, *limits.high} <= set(UNITS) or not np.isfinite(ends).all():
            raise ValueError("gate limits name other values, or are not finite; calibrate again")
        rank(limits.tiles, limits.rate, limits.tests)
        return limits


def rank(tiles: int, rate: float, tests: int) -> int:
    """Rank, from 1, of the order statistic of `tiles` values that is the limit of a test.

    Raises:
        ValueError: a rate that is none, or too few tiles for it.
    """
    if not 0 < rate < 1:
        raise ValueError(f"the rate of false rejects is {rate:g}: give a share between 0 and 1")
    # Rounded, so that a rate that fits exactly does not lose a rank to the last bit.
    place = math.ceil(round((tiles + 1) * (1 - rate / tests), 9))
    if place > tiles:
        least = math.ceil(round(tests / rate, 9)) - 1
        raise ValueError(
            f"{tiles} real tiles are too few for {tests} tests that reject {rate:.2%} of them "
            f"together: give at least {least}, or a rate of {tests / (tiles + 1):.2%} or more"
        )
    return place


def calibrate(
    tiles: Iterable[NDArray[Any]],
    rate: float = 0.01,
    *,
    decoded: Iterable[NDArray[Any]] | None = None,
    corpus_size: int | None = None,
) -> GateLimits:
    """Limits that reject a share of `rate` of real tiles by all tests together.

    Args:
        tiles: real tiles (H, W) that no model was trained on, as images will be given: the same
            unit, encoding and size; best one a scene, and none twice.
        rate: share of real tiles that may be rejected.
        decoded: channels (H, W, 3) of each, through the autoencoder; without them colour is not
            judged, as real tiles themselves are gray.
        corpus_size: images that the corpus will have; as many as `tiles` if None.

    Raises:
        ValueError: too few tiles for the rate; one that cannot be measured, by its number.
    """
    rows: list[dict[str, float]] = []
    codes: list[Code] = []
    sides: list[int] = []
    channels = None if decoded is None else iter(decoded)
    for number, tile in enumerate(tiles):
        try:
            rows.append(measure_image(tile, None if channels is None else next(channels)))
        except StopIteration:
            raise ValueError(f"tile {number} has no decoded channels: give one each") from None
        except ValueError as error:
            raise ValueError(f"real tile {number}: {error}") from error
        codes.append(scene_code(tile))
        sides.append(min(tile.shape))
    count = len(rows)
    upper = [name for name in UPPER if name != COLOUR or channels is not None]
    tests = len(LOWER) + len(upper) + 1  # the last is that of near duplicates
    place = rank(count, rate, tests)
    ordered = {name: np.sort([row[name] for row in rows]) for name in rows[0]}
    low = {name: float(ordered[name][-place]) for name in LOWER}
    high = {
        name: max(float(ordered[name][place - 1]), WIDEST_STRICT.get(name, -math.inf))
        for name in upper
    }
    if not np.isfinite([*low.values(), *high.values()]).all():
        raise ValueError("real tiles have no speckle: give tiles as the radar made them")
    size = max(count, corpus_size or 0)
    bits = _duplicate_bits(np.stack(codes), rate / tests, place, size)
    return GateLimits(low, high, bits, rate, count, size, min(sides))


def _duplicate_bits(codes: Code, rate: float, place: int, corpus_size: int) -> int:
    """Most bits by which duplicates differ: fewer than real tiles differ from their nearest."""
    closest = int(np.sort(nearest(codes))[-place]) - 1
    return max(0, min(closest, chance_distance(codes, rate, corpus_size)))
