"""What the evaluation tells of a set, and votes between sets whose law is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from known_features import known_features as features

from hpc.errors import DataError
from sarhpc.evaluation.config import EvaluateConfig
from sarhpc.evaluation.suite import Evaluation, describe, evaluate, evaluate_features
from sarhpc.measures.features import Features
from sarhpc.measures.levels import PERCENTILES
from sarhpc.measures.looks import LN_EDGES
from sarhpc.measures.nulls import NoVerdict

SUITE = "sarhpc.evaluation.suite"


def mean_of_set(g: Features, wg: Any, r: Features, wr: Any) -> float:
    return float(wg @ g.mean_db)


@pytest.fixture
def evaluate_known(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The evaluation of sets whose measures are given, by distances whose law is known."""

    def run(real: Features, distances: Mapping[str, Any], **sets: Features) -> Evaluation:
        rows = {name: (law, "", "") for name, law in distances.items()}
        monkeypatch.setattr(f"{SUITE}.DISTANCES", rows)
        return evaluate_features({"real": real, **sets}, EvaluateConfig(bootstrap=4000, seed=3))

    return run


NORMAL = np.random.default_rng(0).normal(size=400)
NORMAL = (NORMAL - NORMAL.mean()) / NORMAL.std()


def test_sets_are_compared_draw_by_draw(evaluate_known: Any) -> None:
    real = features(4)
    near, far = features(100, mean_db=NORMAL[:100]), features(100, mean_db=9 + NORMAL[:100])
    level = features(4, mean_db=[NORMAL[:100].mean()] * 4)
    found = evaluate_known(real, {"d": mean_of_set}, near=near, far=far, level=level).better
    names = ("near", "far", "level")
    assert set(found) == {f"{a}<{b}" for a in names for b in names if a != b}
    assert (found["near<far"]["d"], found["far<near"]["d"]) == (1, 0)
    assert found["near<level"]["d"] == pytest.approx(0.5, abs=0.05)
    assert found["near<level"]["d"] + found["level<near"]["d"] == pytest.approx(1, abs=1e-3)


def test_sets_are_compared_with_the_same_draws_of_the_real_tiles(evaluate_known: Any) -> None:
    def gap(g: Features, wg: Any, r: Features, wr: Any) -> float:
        return float(wr @ r.mean_db - wg @ g.mean_db)

    real = features(100, mean_db=NORMAL[:100])
    level, lower = features(4), features(4, mean_db=[-1e-6] * 4)
    assert evaluate_known(real, {"d": gap}, level=level, lower=lower).better["level<lower"] == {
        "d": 1
    }


def test_sets_as_far_away_as_each_other_win_no_draw(evaluate_known: Any) -> None:
    found = evaluate_known(features(4), {"d": lambda *_: 1.0}, one=features(4), two=features(4))
    assert found.better == {"one<two": {"d": 0.0}, "two<one": {"d": 0.0}}


def test_a_single_set_is_compared_with_none(evaluate_known: Any) -> None:
    assert evaluate_known(features(4), {"d": mean_of_set}, one=features(4)).better == {}


def test_a_set_is_described_by_the_means_over_its_tiles() -> None:
    looks = np.zeros((5, 600))
    # Around ENL 4; uncorrelated pixels of 4 looks, whose products far apart are 1 - 1/(4 * 256).
    looks[:, np.searchsorted(LN_EDGES, np.log(4)) - 1] = 1
    products = np.ones((5, 2, 7))
    products[:, :, 1] = 1.25
    other = features(
        5,
        local_enl=looks,
        lag_products=products,
        log_cumulants=[[0, 1, -2]] * 4 + [[5, 6, 3]],
        mean_db=[1, 2, 3, 4, 10],
        clipped=[0, 0, 0, 0, 0.5],
        bright_excess_db=[0, 0, 0, 0, 1],
        percentiles_db=np.tile(np.arange(8), (5, 1)),
        lines_db=np.full((5, 2, 4), 1.5),
    )
    found = describe(other, {})
    assert (found.tiles, found.mean_db, found.clipped, found.bright_excess_db) == (5, 4, 0.1, 0.2)
    assert found.log_cumulants == pytest.approx({"k1": 1, "k2": 2, "k3": -1})
    assert list(found.percentiles_db) == [f"P{p:g}" for p in PERCENTILES]
    assert found.percentiles_db["P99.9"] == 7
    assert found.grid_lines_db == pytest.approx(1.5)
    # 81 independent pixels: (1 + 1/4) (1/81 + 1/81) is taken off the logarithm; bins are of 2 %.
    assert found.enl_mode == pytest.approx(4 * np.exp(-1.25 * 2 / 81), rel=0.011)


def test_without_scenes_each_distance_says_why_it_has_no_verdict(evaluate_known: Any) -> None:
    found = evaluate_known(features(4), {"d": mean_of_set}, one=features(4, mean_db=[1, 2, 3, 4]))
    assert found.sets["one"].measures["d"] == NoVerdict(
        2.5, "the scenes of the real tiles are not known, so that there is no null"
    )
    assert (found.real_tiles, found.sets["real"].measures) == (4, {})
    assert found.to_json()["schema"] == "sarhpc.evaluation/2"


def test_sets_need_four_tiles_of_the_size_of_the_real_ones() -> None:
    real = np.random.default_rng(0).integers(1, 200, (5, 32, 33)).astype(np.uint8)
    config = EvaluateConfig(bootstrap=2)
    assert evaluate(real[:4], {"more": real}, config).real_tiles == 4
    for shape, says in (
        ((3, 32, 33), "set 'odd' has 3 tiles; an evaluation needs 4"),
        ((4, 32, 32), r"set 'odd' has tiles \(32, 32\), real \(32, 33\)"),
        ((4, 33, 33), r"set 'odd' has tiles \(33, 33\), real \(32, 33\)"),
    ):
        with pytest.raises(DataError, match=says):
            evaluate(real, {"odd": np.zeros(shape, np.uint8)}, config)
    with pytest.raises(DataError, match="set 'real' has 3 tiles"):
        evaluate(real[:3], {}, config)
