"""The evaluation's intervals, floors and votes against laws that are known beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from hpc.errors import DataError
from sarhpc.evaluation.config import EvaluateConfig
from sarhpc.evaluation.suite import Evaluation, evaluate, floor_of
from sarhpc.measures.features import Features

SUITE = "sarhpc.evaluation.suite"


def features(count: int, **known: Any) -> Features:
    """A set of `count` tiles with the measures `known`; the others are zero."""
    widths = {"histogram": 256, "looks": 120, "acf_range": 5, "acf_azimuth": 5, "psd": 256}
    plain = {name: np.zeros((count, width)) for name, width in widths.items()}
    plain |= {n: np.zeros(count) for n in ("mean_db", "clipped")}
    return Features(**{**plain, **{name: np.asarray(x, float) for name, x in known.items()}})


def mean_of_set(g: Features, wg: Any, r: Features, wr: Any) -> float:
    return float(wg @ g.mean_db)


def mean_of_real(g: Features, wg: Any, r: Features, wr: Any) -> float:
    return float(wr @ r.mean_db)


@pytest.fixture
def evaluate_known(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`evaluate` of sets whose measures are given, by distances whose bootstrap law is known."""

    def run(real: Features, distances: Mapping[str, Any], **sets: Features) -> Evaluation:
        known = [real, *sets.values()]
        stacks = [np.full((len(one), 1, 1), n, np.uint8) for n, one in enumerate(known)]
        monkeypatch.setattr(f"{SUITE}.measure", lambda tiles: known[int(tiles[0, 0, 0])])
        if distances:
            rows = {name: (law, "", "") for name, law in distances.items()}
            monkeypatch.setattr(f"{SUITE}.DISTANCES", rows)
        return evaluate(stacks[0], dict(zip(sets, stacks[1:], strict=True)), config)

    config = EvaluateConfig(bootstrap=4000, seed=3)
    run.config = config  # type: ignore[attr-defined]
    return run


NORMAL = np.random.default_rng(0).normal(size=400)
NORMAL = (NORMAL - NORMAL.mean()) / NORMAL.std()


def test_the_interval_is_the_95_percent_one_of_the_mean_of_either_side(evaluate_known: Any) -> None:
    laws = {"of_set": mean_of_set, "of_real": mean_of_real}
    real, other = features(400, mean_db=NORMAL), features(100, mean_db=3 + NORMAL[:100])
    measures = evaluate_known(real, laws, other=other).sets["other"].measures
    # A mean of n tiles scatters by sigma / sqrt(n); 95 % lie within 1.96 of that.
    for name, values in (("of_set", other.mean_db), ("of_real", real.mean_db)):
        half = 1.96 * values.std() / np.sqrt(values.size)
        found = measures[name]
        assert found.raw == pytest.approx(values.mean(), abs=1e-12)
        assert found.high - values.mean() == pytest.approx(half, rel=0.08)
        assert values.mean() - found.low == pytest.approx(half, rel=0.08)
        assert (found.high - found.low) / (2 * half) == pytest.approx(1, abs=0.06)


def test_sets_are_drawn_independently_of_the_real_tiles(evaluate_known: Any) -> None:
    def difference(g: Features, wg: Any, r: Features, wr: Any) -> float:
        return mean_of_set(g, wg, r, wr) - mean_of_real(g, wg, r, wr)

    same = features(400, mean_db=NORMAL)
    found = evaluate_known(same, {"d": difference}, other=same).sets["other"].measures["d"]
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(2 / 400), rel=0.08)


def test_a_seed_gives_one_interval_and_one_floor_and_another_seed_others(
    evaluate_known: Any,
) -> None:
    real = features(40, mean_db=NORMAL[:40])
    found = []
    for seed in (3, 3, 4):
        evaluate_known.config.seed = seed
        one = evaluate_known(real, {"d": mean_of_set}, other=real)
        found.append((one.sets["other"].measures["d"], one.sets["real"].measures["d"]))
    assert found[0] == found[1]
    assert found[0][0].low != found[2][0].low
    assert found[0][1].floor != found[2][1].floor


def test_the_floor_is_the_mean_over_twenty_splits_into_halves_that_share_no_tile() -> None:
    splits: list[tuple[set[float], set[float]]] = []

    def probe(a: Features, wa: Any, b: Features, wb: Any) -> float:
        splits.append((set(a.mean_db), set(b.mean_db)))
        assert wa.tolist() == [1 / len(a)] * len(a)
        assert wb.tolist() == [1 / len(b)] * len(b)
        return float(len(splits))

    reference = features(9, mean_db=np.arange(9))
    assert floor_of(reference, probe, seed=0) == np.mean(np.arange(1, 21))
    for first, second in splits:
        assert (len(first), len(second)) == (4, 5)
        assert first | second == set(range(9))
    assert len({frozenset(first) for first, _ in splits}) > 10
    again: list[float] = []
    floor_of(reference, lambda a, wa, b, wb: again.append(set(a.mean_db)) or 0.0, seed=0)  # type: ignore[func-returns-value, arg-type]
    assert again == [first for first, _ in splits], "the same splits for every distance"


def test_the_splits_of_a_seed_are_those_of_earlier_reports() -> None:
    first: list[list[float]] = []

    def probe(a: Features, wa: Any, b: Features, wb: Any) -> float:
        first.append(a.mean_db.tolist())
        return 0.0

    floor_of(features(9, mean_db=np.arange(9)), probe, seed=3)
    rng = np.random.default_rng([3, 1])
    assert first == [rng.permutation(9)[:4].tolist() for _ in range(20)]


def test_the_real_set_stands_at_its_floor(evaluate_known: Any) -> None:
    def gap(g: Features, wg: Any, r: Features, wr: Any) -> float:
        return abs(mean_of_set(g, wg, r, wr) - mean_of_real(g, wg, r, wr))

    def nothing(g: Features, wg: Any, r: Features, wr: Any) -> float:
        return 0.0

    real = features(40, mean_db=NORMAL[:40])
    found = evaluate_known(real, {"gap": gap, "none": nothing}, other=features(4, mean_db=[2] * 4))
    of_real, other = found.sets["real"].measures, found.sets["other"].measures
    assert of_real["gap"].raw == of_real["gap"].floor > 0
    assert of_real["gap"].ratio == 1
    assert other["gap"].floor == of_real["gap"].floor
    assert other["gap"].raw == pytest.approx(2 - real.mean_db.mean())
    assert other["gap"].ratio == pytest.approx(other["gap"].raw / other["gap"].floor)
    assert (other["none"].floor, other["none"].ratio) == (0, None)


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


def test_sets_as_far_away_as_each_other_win_no_draw(evaluate_known: Any) -> None:
    found = evaluate_known(features(4), {"d": lambda *_: 1.0}, one=features(4), two=features(4))
    assert found.better == {"one<two": {"d": 0.0}, "two<one": {"d": 0.0}}


def test_a_set_is_told_by_its_size_looks_level_and_clipping(evaluate_known: Any) -> None:
    looks = np.zeros((5, 120))
    looks[:, 58:63] = 0.2
    other = features(5, looks=looks, mean_db=[1, 2, 3, 4, 10], clipped=[0, 0, 0, 0, 0.5])
    found = evaluate_known(features(4), {"d": mean_of_set}, other=other)
    of_other = found.sets["other"]
    assert (found.real_tiles, of_other.tiles, of_other.mean_db, of_other.clipped) == (4, 5, 4, 0.1)
    assert of_other.enl_mode == pytest.approx(0.05 * 1000 ** (60.5 / 120))
    assert set(found.sets) == {"real", "other"}


def test_sets_need_four_tiles_of_the_size_of_the_real_ones() -> None:
    real = np.zeros((4, 16, 17), np.uint8)
    config = EvaluateConfig(bootstrap=2)
    assert evaluate(real, {"more": np.zeros((5, 16, 17), np.uint8)}, config).real_tiles == 4
    for shape, says in (
        ((3, 16, 17), "set 'odd' has 3 tiles; an evaluation needs 4"),
        ((4, 16, 16), r"set 'odd' has tiles \(16, 16\), real \(16, 17\)"),
        ((4, 17, 17), r"set 'odd' has tiles \(17, 17\), real \(16, 17\)"),
    ):
        with pytest.raises(DataError, match=says):
            evaluate(real, {"odd": np.zeros(shape, np.uint8)}, config)
    with pytest.raises(DataError, match="set 'real' has 3 tiles"):
        evaluate(real[:3], {}, config)
