"""The evaluation: each distance raw, its real-versus-real floor, their ratio, and an interval."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.evaluation.config import MIN_TILES, EvaluateConfig
from sarhpc.measures.distances import DISTANCES, Distance, look_mode, uniform
from sarhpc.measures.features import Features, measure
from sarhpc.measures.nulls import NoVerdict, Verdict, most_tiles, verdicts

FLOOR_SPLITS = 20


@dataclass(frozen=True)
class Measure:
    """One distance of one set against the real tiles."""

    raw: float
    low: float
    """Lower end of the 95 % bootstrap interval of `raw`."""
    high: float
    floor: float
    """The same distance between two random halves of the real tiles, mean over 20 splits."""
    ratio: float | None
    """raw / floor: about 1 when the set is as close to real as real halves are to each other. None
    where the floor is zero."""
    null: Verdict | NoVerdict | None = None
    """The same distance against real tiles of other scenes, of as many tiles as there are real ones
    for; None where scenes are not known, or for the real tiles themselves and their copies."""


@dataclass(frozen=True)
class SetEvaluation:
    """All measures of one set of tiles."""

    tiles: int
    measures: Mapping[str, Measure]
    enl_mode: float
    mean_db: float
    clipped: float


@dataclass(frozen=True)
class Evaluation:
    """Every set against the real tiles, and the comparisons between sets."""

    real_tiles: int
    sets: Mapping[str, SetEvaluation]
    better: Mapping[str, Mapping[str, float]]
    """`a<b` -> metric -> share of bootstrap draws in which set a is closer to real than b."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for `evaluation.json`."""
        return asdict(self)


def evaluate(
    real: NDArray[np.uint8],
    sets: Mapping[str, NDArray[np.uint8]],
    config: EvaluateConfig,
    scenes: Sequence[Hashable] | None = None,
    copies: Collection[str] = (),
) -> Evaluation:
    """Evaluation of each set of tiles (N, H, W) uint8 against the real tiles (M, H, W).

    The real tiles are measured against themselves as the set `real`.

    Args:
        real: the real tiles.
        sets: tiles by name of the set.
        config: sizes and seeds.
        scenes: scene of each real tile, for nulls; without it there are none.
        copies: sets whose tiles are made of the real ones, and so of the same scenes: no null.

    Raises:
        DataError: fewer than four tiles in a set, or tiles of different sizes.
    """
    for name, tiles in {"real": real, **sets}.items():
        if len(tiles) < MIN_TILES:
            raise DataError(f"set {name!r} has {len(tiles)} tiles; an evaluation needs {MIN_TILES}")
        if tiles.shape[1:] != real.shape[1:]:
            raise DataError(f"set {name!r} has tiles {tiles.shape[1:]}, real {real.shape[1:]}")
    reference = measure(real)
    measured = {"real": reference} | {name: measure(tiles) for name, tiles in sets.items()}
    draws = _BootstrapDraws(reference, measured, config)
    floors = {name: floor_of(reference, d[0], config.seed) for name, d in DISTANCES.items()}
    found = {name: _evaluate_set(name, draws, floors) for name in measured}
    if scenes is not None:
        for name in measured.keys() - {"real", *copies}:
            found[name] = _with_nulls(found[name], measured[name], reference, scenes, config)
    return Evaluation(
        real_tiles=len(reference),
        sets=found,
        better=_comparisons(draws, [name for name in measured if name != "real"]),
    )


class _BootstrapDraws:
    """Bootstrap draws shared by all sets, so that sets are compared on the same real tiles."""

    def __init__(
        self, reference: Features, measured: Mapping[str, Features], config: EvaluateConfig
    ) -> None:
        self.reference, self.measured = reference, measured
        rng = np.random.default_rng(config.seed)
        self.real_weights = _resamplings(len(reference), config.bootstrap, rng)
        self.values: dict[tuple[str, str], NDArray[np.float64]] = {}
        for name, features in measured.items():
            weights = _resamplings(len(features), config.bootstrap, rng)
            for metric, (distance, _, _) in DISTANCES.items():
                self.values[name, metric] = np.array(
                    [
                        distance(features, wg, reference, wr)
                        for wg, wr in zip(weights, self.real_weights, strict=True)
                    ]
                )


def _resamplings(n: int, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.multinomial(n, np.full(n, 1.0 / n), size=count) / n


def floor_of(reference: Features, distance: Distance, seed: int) -> float:
    """Distance between random halves of a set, mean over 20 splits."""
    rng = np.random.default_rng([seed, 1])
    values = []
    for _ in range(FLOOR_SPLITS):
        order = rng.permutation(len(reference))
        half = len(order) // 2
        a, b = reference.subset(order[:half]), reference.subset(order[half:])
        values.append(distance(a, uniform(a), b, uniform(b)))
    return float(np.mean(values))


def _evaluate_set(name: str, draws: _BootstrapDraws, floors: Mapping[str, float]) -> SetEvaluation:
    features, reference = draws.measured[name], draws.reference
    weights = uniform(features)
    measures = {}
    for metric, (distance, _, _) in DISTANCES.items():
        raw = distance(features, weights, reference, uniform(reference))
        if name == "real":
            raw = floors[metric]
        low, high = np.percentile(draws.values[name, metric], [2.5, 97.5])
        floor = floors[metric]
        ratio = raw / floor if floor > 0 else None
        measures[metric] = Measure(raw, float(low), float(high), floor, ratio)
    return SetEvaluation(
        tiles=len(features),
        measures=measures,
        enl_mode=look_mode(features, weights),
        mean_db=float(features.mean_db.mean()),
        clipped=float(features.clipped.mean()),
    )


def _with_nulls(
    of: SetEvaluation,
    features: Features,
    real: Features,
    scenes: Sequence[Hashable],
    config: EvaluateConfig,
) -> SetEvaluation:
    count = min(len(features), most_tiles(scenes) or len(features))
    compared = features.subset(np.linspace(0, len(features) - 1, count).round().astype(np.int64))
    distances = {metric: entry[0] for metric, entry in DISTANCES.items()}
    found = verdicts(
        compared, real, scenes, distances, bootstrap=config.bootstrap, seed=config.seed
    )
    measures = {metric: replace(one, null=found[metric]) for metric, one in of.measures.items()}
    return replace(of, measures=measures)


def _comparisons(draws: _BootstrapDraws, names: list[str]) -> dict[str, dict[str, float]]:
    return {
        f"{a}<{b}": {
            metric: float((draws.values[a, metric] < draws.values[b, metric]).mean())
            for metric in DISTANCES
        }
        for a in names
        for b in names
        if a != b
    }
