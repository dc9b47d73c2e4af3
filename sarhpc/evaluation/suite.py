"""The evaluation: each distance of each set to the real tiles, and how it stands in its null."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.evaluation.config import MIN_TILES, EvaluateConfig
from sarhpc.measures.distances import DISTANCES, looks, uniform
from sarhpc.measures.features import Features, measure
from sarhpc.measures.levels import PERCENTILES
from sarhpc.measures.nulls import NoVerdict, Verdict, verdicts, without_verdict
from sarhpc.measures.spectrum import grid_lines_db

EVALUATION_SCHEMA = "sarhpc.evaluation/2"
"""Version 1, which did not name itself, had floors of half sets and their ratios."""
UNKNOWN_SCENES = "the scenes of the real tiles are not known, so that there is no null"


@dataclass(frozen=True)
class SetEvaluation:
    """What is measured of one set of tiles, and its distances to the real ones."""

    tiles: int
    measures: Mapping[str, Verdict | NoVerdict]
    """By name of the distance; empty for the real tiles themselves."""
    enl_mode: float
    """E1."""
    log_cumulants: Mapping[str, float]
    """E2: k1, k2 and k3 of ln I, mean over the tiles."""
    mean_db: float
    percentiles_db: Mapping[str, float]
    """E3: mean over the tiles of their percentiles, dB."""
    bright_excess_db: float
    """E3: mean of what exceeds the median by more than 18 dB, dB; targets."""
    clipped: float
    """E3: share of pixels at the highest code."""
    grid_lines_db: float
    """E5: level of lines of a grid of 8 px over the continuum, dB; 0 without a grid."""


@dataclass(frozen=True)
class Evaluation:
    """Every set against the real tiles, and the comparisons between sets."""

    real_tiles: int
    sets: Mapping[str, SetEvaluation]
    better: Mapping[str, Mapping[str, float]]
    """`a<b` -> metric -> share of bootstrap draws in which set a is closer to real than b."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for `evaluation.json`."""
        return {"schema": EVALUATION_SCHEMA, **asdict(self)}


def evaluate(
    real: NDArray[Any],
    sets: Mapping[str, NDArray[Any]],
    config: EvaluateConfig,
    scenes: Sequence[Hashable] | None = None,
    copies: Collection[str] = (),
) -> Evaluation:
    """Evaluation of each set of tiles (N, H, W) against the real tiles (M, H, W).

    The set `real` of the result has the measures of the real tiles, and no distances.

    Args:
        real: the real tiles, linear amplitude or its 8-bit view.
        sets: tiles by name of the set.
        config: sizes and seeds.
        scenes: scene of each real tile, for nulls; without it there are no verdicts.
        copies: sets whose tiles are made of the real ones, one of each in their order.

    Raises:
        DataError: fewer than four tiles in a set, tiles of different sizes, or one that cannot be
            measured (see `sarhpc.measures.features.measure`).
    """
    for name, tiles in {"real": real, **sets}.items():
        if len(tiles) < MIN_TILES:
            raise DataError(f"set {name!r} has {len(tiles)} tiles; an evaluation needs {MIN_TILES}")
        if tiles.shape[1:] != real.shape[1:]:
            raise DataError(f"set {name!r} has tiles {tiles.shape[1:]}, real {real.shape[1:]}")
    measured = {name: _measured(name, tiles) for name, tiles in {"real": real, **sets}.items()}
    return evaluate_features(measured, config, scenes, copies)


def evaluate_features(
    measured: Mapping[str, Features],
    config: EvaluateConfig,
    scenes: Sequence[Hashable] | None = None,
    copies: Collection[str] = (),
) -> Evaluation:
    """The same of sets that are measured already; `real` is one of them.

    Raises:
        DataError: a set has no distance to the real tiles.
    """
    real = measured["real"]
    sets = {"real": describe(real, {})}
    for name, features in measured.items():
        if name != "real":
            found = _verdicts(name, features, real, config, scenes, name in copies)
            sets[name] = describe(features, found)
    return Evaluation(len(real), sets, _comparisons(measured, config))


def describe(features: Features, measures: Mapping[str, Verdict | NoVerdict]) -> SetEvaluation:
    """What is measured of a set, beside its distances."""
    weights = uniform(features)
    cumulants, percentiles = (
        values.mean(0).tolist() for values in (features.log_cumulants, features.percentiles_db)
    )
    return SetEvaluation(
        tiles=len(features),
        measures=measures,
        enl_mode=looks(features, weights),
        log_cumulants=dict(zip(("k1", "k2", "k3"), cumulants, strict=True)),
        mean_db=float(features.mean_db.mean()),
        percentiles_db={f"P{p:g}": v for p, v in zip(PERCENTILES, percentiles, strict=True)},
        bright_excess_db=float(features.bright_excess_db.mean()),
        clipped=float(features.clipped.mean()),
        grid_lines_db=grid_lines_db(features.lines_db),
    )


def _measured(name: str, tiles: NDArray[Any]) -> Features:
    try:
        return measure(tiles)
    except ValueError as error:
        raise DataError(f"set {name!r}: {error}") from error


def _verdicts(
    name: str,
    features: Features,
    real: Features,
    config: EvaluateConfig,
    scenes: Sequence[Hashable] | None,
    copies: bool,
) -> dict[str, Verdict | NoVerdict]:
    distances = {metric: entry[0] for metric, entry in DISTANCES.items()}
    try:
        if scenes is None:
            return without_verdict(features, real, distances, UNKNOWN_SCENES)
        return verdicts(
            features,
            real,
            scenes,
            distances,
            bootstrap=config.bootstrap,
            seed=config.seed,
            copies=copies,
        )
    except ValueError as error:
        raise DataError(f"set {name!r} cannot be compared with the real tiles: {error}") from error


def _comparisons(
    measured: Mapping[str, Features], config: EvaluateConfig
) -> dict[str, dict[str, float]]:
    names = [name for name in measured if name != "real"]
    if len(names) < 2:
        return {}
    values = _draws(measured, config)
    return {
        f"{a}<{b}": {
            metric: float((values[a, metric] < values[b, metric]).mean()) for metric in DISTANCES
        }
        for a in names
        for b in names
        if a != b
    }


def _draws(
    measured: Mapping[str, Features], config: EvaluateConfig
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Distances of resamplings; all sets are compared with the same ones of the real tiles."""
    real, rng = measured["real"], np.random.default_rng(config.seed)
    real_weights = _resamplings(len(real), config.bootstrap, rng)
    values = {}
    for name, features in measured.items():
        if name == "real":
            continue
        weights = _resamplings(len(features), config.bootstrap, rng)
        for metric, (distance, _, _) in DISTANCES.items():
            values[name, metric] = np.array(
                [
                    distance(features, wg, real, wr)
                    for wg, wr in zip(weights, real_weights, strict=True)
                ]
            )
    return values


def _resamplings(n: int, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.multinomial(n, np.full(n, 1.0 / n), size=count) / n
