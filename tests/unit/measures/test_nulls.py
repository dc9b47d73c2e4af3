"""Nulls: the p-values of a perfect generator are uniform, and its scores average 0."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from known_features import known_features
from scipy.ndimage import gaussian_filter
from scipy.stats import kstest
from speckle_tiles import speckle, to_code

from sarhpc.measures.distances import DISTANCES, Distance, Weights
from sarhpc.measures.features import Features, amplitude, measure
from sarhpc.measures.nulls import (
    NoVerdict,
    Null,
    TooFewGroupsError,
    Verdict,
    draw_null,
    evenly_over_groups,
    judge,
    log_ratio,
    most_tiles,
    verdicts,
)
from sarhpc.measures.score import SCORED

SIZE = 48


@dataclass(frozen=True)
class Pool:
    """Tiles of many scenes, from which every replicate draws its own scenes."""

    features: Features
    scenes: np.ndarray
    codes: np.ndarray

    def of(self, scenes: np.ndarray) -> np.ndarray:
        return np.flatnonzero(np.isin(self.scenes, scenes))

    def one_of_each(self, scenes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.array([rng.choice(self.of(scene)) for scene in scenes])


@functools.cache
def make_pool(scenes: int, seed: int = 0) -> Pool:
    """Scenes of their own level and texture, of one to three tiles each, in Taylor speckle."""
    rng = np.random.default_rng(seed)
    codes, labels = [], []
    for scene in range(scenes):
        level = 0.15 * np.exp(rng.normal(0, 0.35))
        roughness, grain = abs(rng.normal(0.3, 0.15)), rng.uniform(1, 4)
        for _ in range(1 + int(rng.integers(3))):
            texture = gaussian_filter(rng.standard_normal((SIZE, SIZE)), grain)
            A = level * np.exp(roughness * texture / texture.std()) * np.abs(speckle(rng, SIZE))
            codes.append(to_code(A))
            labels.append(scene)
    return Pool(measure(codes), np.array(labels), np.stack(codes))


@pytest.fixture(scope="module")
def pool() -> Pool:
    return make_pool(320)


def perfect_generator(
    pool: Pool, images: int, real_scenes: int, replicates: int
) -> tuple[dict[str, list[float]], list[float]]:
    """p-values by measure, and scores, of images that are tiles of other scenes."""
    rng = np.random.default_rng(images)
    # No pixel of the pool is 18 dB over its tile: E3_bright is 0 and never refuses.
    p_values: dict[str, list[float]] = {name: [] for name in DISTANCES if name != "E3_bright"}
    scores = []
    for replicate in range(replicates):
        order = rng.permutation(pool.scenes.max() + 1)
        real = pool.of(order[:real_scenes])
        fake = pool.features.subset(
            pool.one_of_each(order[real_scenes : real_scenes + images], rng)
        )
        null = draw_null(
            pool.features.subset(real), pool.scenes[real], images, draws=99, seed=replicate
        )
        assert null.groups_drawn == images
        found = {
            name: judge(fake, DISTANCES[name][0], null, bootstrap=2, seed=replicate)
            for name in p_values
        }
        for name, verdict in found.items():
            p_values[name].append(verdict.p_value)
        scores.append(float(np.mean([found[name].log_ratio for name in SCORED])))
    return p_values, scores


def assert_calibrated(pool: Pool, images: int, real_scenes: int, replicates: int) -> None:
    p_values, scores = perfect_generator(pool, images, real_scenes, replicates)
    for name, values in p_values.items():
        assert kstest(values, "uniform").pvalue > 0.01, name
    mean, spread = float(np.mean(scores)), float(np.std(scores))
    print(f"\n{images} images: score {mean:+.3f}, spread {spread:.2f} over {replicates} draws")
    assert abs(mean) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("images", "real_scenes"), [(8, 40), (48, 100)])
def test_p_values_of_a_perfect_generator_are_uniform_and_its_scores_average_0(
    pool: Pool, images: int, real_scenes: int
) -> None:
    assert_calibrated(pool, images, real_scenes, replicates=100)


@pytest.mark.long
@pytest.mark.parametrize(("images", "real_scenes"), [(8, 100), (48, 200), (400, 1000)])
def test_p_values_are_uniform_and_scores_average_0_at_any_number_of_images(
    images: int, real_scenes: int
) -> None:
    # Replicates that share most of their scenes are not independent: each takes 1400 at most.
    assert_calibrated(make_pool(6400, seed=1), images, real_scenes, replicates=200)


def levels(values: np.ndarray) -> Features:
    """Features of tiles of which only the mean level is known."""
    return known_features(values.size, mean_db=values)


def mean_difference(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    return abs(float(wg @ g.mean_db - wr @ r.mean_db))


def scene_levels(
    rng: np.random.Generator, sizes: Sequence[int], scene: float = 1.0, tile: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Levels of tiles and the scenes that they are of; levels vary by scene and by tile."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return rng.normal(0, scene, len(sizes))[labels] + rng.normal(0, tile, labels.size), labels


def p_values_of_levels(
    images: int, sizes: Sequence[int], *, by_tile: bool = False, replicates: int = 200
) -> np.ndarray:
    rng = np.random.default_rng(11)
    found = []
    for replicate in range(replicates):
        values, labels = scene_levels(rng, sizes)
        groups = np.arange(labels.size) if by_tile else labels
        null = draw_null(levels(values), groups, images, draws=99, seed=replicate)
        fake = levels(scene_levels(rng, [1] * images)[0])
        found.append(judge(fake, mean_difference, null, bootstrap=2).p_value)
    return np.array(found)


@pytest.mark.slow
def test_p_values_are_uniform_where_scenes_are_of_unequal_size() -> None:
    p_values = p_values_of_levels(6, [2, 14] * 8)
    # 200 draws: 0.05 +- 0.015 (one sigma).
    assert (p_values <= 0.05).mean() < 0.1
    assert kstest(p_values, "uniform").pvalue > 0.01


@pytest.mark.slow
def test_a_null_of_tiles_instead_of_scenes_rejects_a_perfect_generator() -> None:
    by_scene, by_tile = (p_values_of_levels(30, [30] * 10, by_tile=flag) for flag in (False, True))
    # The reference shares the 10 levels of its scenes: sigma^2 (1/30 + 1/10) by scene, and in
    # draws of tiles sigma^2 / 30; a third of all normal differences exceeds 1.96 / 2 sigma.
    assert (by_tile <= 0.05).mean() > 0.2
    assert (by_scene <= 0.05).mean() < 0.1


@pytest.mark.slow
def test_images_of_more_scenes_than_the_null_has_never_get_too_small_a_p_value() -> None:
    values, labels = scene_levels(np.random.default_rng(0), [10] * 12)
    null = draw_null(levels(values), labels, 48, draws=9)
    assert (null.groups, null.groups_drawn, null.tiles) == (12, 6, 48)
    p_values = p_values_of_levels(48, [10] * 12)
    assert (p_values <= 0.05).mean() <= 0.05
    assert p_values.mean() > 0.5


def counts_of(weights: np.ndarray, labels: np.ndarray) -> dict[int, int]:
    taken = labels[weights > 0]
    return {int(g): int((taken == g).sum()) for g in np.unique(taken)}


@pytest.fixture(scope="module")
def null_of_unequal_scenes() -> tuple[Null, np.ndarray]:
    values, labels = scene_levels(np.random.default_rng(2), [4, 9, 30, 4, 12, 5, 7, 4, 6, 11])
    return draw_null(levels(values), labels, 13, 20), labels


def test_neighbours_never_stand_on_both_sides(
    null_of_unequal_scenes: tuple[Null, np.ndarray],
) -> None:
    null, labels = null_of_unequal_scenes
    for drawn, others in zip(null.drawn, null.others, strict=True):
        assert not set(labels[drawn > 0]) & set(labels[others > 0])
        assert ((drawn > 0).sum(), (others > 0).sum()) == (13, 20)
        assert drawn.sum() == pytest.approx(1)
        assert others.sum() == pytest.approx(1)
    assert len(np.unique(null.drawn > 0, axis=0)) > 150, "draws differ"


def test_tiles_of_a_draw_are_spread_evenly_over_its_groups(
    null_of_unequal_scenes: tuple[Null, np.ndarray],
) -> None:
    null, labels = null_of_unequal_scenes
    for side in (null.drawn, null.others):
        for weights in side:
            counts = counts_of(weights, labels)
            size = {group: int((labels == group).sum()) for group in counts}
            most = max(counts.values())
            assert len(counts) == 5
            assert all(n >= most - 1 or n == size[group] for group, n in counts.items())


def test_draws_are_those_of_their_seed() -> None:
    values, labels = scene_levels(np.random.default_rng(2), [3] * 12)
    same = [draw_null(levels(values), labels, 4, draws=5, seed=seed).drawn for seed in (1, 1, 2)]
    assert np.array_equal(same[0], same[1])
    assert not np.array_equal(same[0], same[2])


def test_a_defect_stands_beyond_every_draw(pool: Pool) -> None:
    order = np.random.default_rng(5).permutation(320)
    real, fake = pool.of(order[:80]), pool.of(order[80:])[:16]
    null = draw_null(pool.features.subset(real), pool.scenes[real], 16)
    blurred = measure([to_code(gaussian_filter(amplitude(t), 0.6)) for t in pool.codes[fake]])
    judged = {name: judge(blurred, DISTANCES[name][0], null) for name in ("E4_acf", "E5_lsd")}
    for verdict in judged.values():
        assert verdict.p_value == 1 / 200
        assert verdict.null_median < verdict.null_95 < verdict.low < verdict.high
        assert verdict.log_ratio > math.log(2)
    judged = {name: judge(pool.features.subset(fake), DISTANCES[name][0], null) for name in judged}
    assert all(verdict.p_value > 0.01 for verdict in judged.values())


def test_the_interval_holds_the_distance_of_the_populations() -> None:
    rng = np.random.default_rng(8)
    covered = 0
    for _ in range(100):
        values, labels = scene_levels(rng, [2, 5] * 20)
        null = draw_null(levels(values), labels, 16, draws=1)
        fake = levels(5.0 + scene_levels(rng, [1] * 16)[0])
        verdict = judge(fake, mean_difference, null)
        covered += verdict.low <= 5.0 <= verdict.high
    # 95 expected; percentile intervals of 16 tiles are a little short: 4 sigma of 91.
    assert covered >= 80


def test_the_log_ratio_of_a_half_normal_distance_averages_0() -> None:
    rng = np.random.default_rng(0)
    null = np.abs(rng.standard_normal(20_000))
    raw = np.abs(rng.standard_normal(20_000))
    # The standard deviation of ln|z| is 1.11: 0.011 for the mean of either.
    assert np.mean([log_ratio(x, null) for x in raw[:2000]]) == pytest.approx(0, abs=0.1)
    assert np.log(raw / np.median(null)).mean() == pytest.approx(-0.24, abs=0.05)
    assert math.isfinite(log_ratio(0.0, null))


def test_too_few_groups_give_the_distance_and_the_reason_and_no_verdict() -> None:
    values, labels = scene_levels(np.random.default_rng(0), [10] * 7)
    fake = levels(np.zeros(4))
    judged = verdicts(fake, levels(values), labels, {"level": mean_difference})
    assert isinstance(judged["level"], NoVerdict)
    assert "7 scenes" in judged["level"].reason
    assert judged["level"].raw == pytest.approx(abs(values.mean()))
    assert not hasattr(judged["level"], "p_value")
    values, labels = scene_levels(np.random.default_rng(0), [10] * 8)
    judged = verdicts(fake, levels(values), labels, {"level": mean_difference})
    assert isinstance(judged["level"], Verdict)
    assert (judged["level"].tiles, judged["level"].reference_tiles) == (4, 40)
    assert (judged["level"].groups, judged["level"].groups_drawn) == (8, 4)


@pytest.mark.parametrize(
    ("tiles", "others", "message"),
    [(31, None, "hold 30 tiles"), (30, 31, "leave 30 tiles")],
)
def test_sizes_that_the_groups_do_not_hold_are_refused(
    tiles: int, others: int | None, message: str
) -> None:
    values, labels = scene_levels(np.random.default_rng(0), [6] * 10)
    with pytest.raises(TooFewGroupsError, match=message):
        draw_null(levels(values), labels, tiles, others)


@pytest.mark.parametrize("sizes", [[6] * 10, [1, 2, 3, 40, 50, 60, 7, 8, 9], [3] * 8])
def test_the_most_tiles_have_a_null_and_one_more_has_not(sizes: list[int]) -> None:
    values, labels = scene_levels(np.random.default_rng(0), sizes)
    most = most_tiles(labels)
    null = draw_null(levels(values), labels, most, most, draws=20)
    assert (null.tiles, null.reference_tiles) == (most, most)
    with pytest.raises(TooFewGroupsError):
        draw_null(levels(values), labels, most + 1, most + 1)


def test_few_groups_have_no_null_of_any_number_of_tiles() -> None:
    assert most_tiles(np.repeat(np.arange(7), 50)) == 0
    assert most_tiles([]) == 0


def test_what_is_not_comparable_is_refused() -> None:
    values, labels = scene_levels(np.random.default_rng(0), [6] * 10)
    null = draw_null(levels(values), labels, 4, draws=5)
    with pytest.raises(ValueError, match="5 tiles against a null of 4"):
        judge(levels(np.zeros(5)), mean_difference, null)
    with pytest.raises(ValueError, match="not finite"):
        judge(levels(np.array([0, np.nan, 0, 0])), mean_difference, null)
    with pytest.raises(ValueError, match="one each"):
        draw_null(levels(values), labels[:-1], 4)
    for tiles, reference_tiles, draws in ((0, None, 5), (4, 0, 5), (4, None, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            draw_null(levels(values), labels, tiles, reference_tiles, draws)


def test_real_tiles_are_drawn_evenly_over_scenes_and_not_in_shard_order() -> None:
    labels = ["a"] * 500 + ["b"] * 30 + ["c"] * 3
    taken = evenly_over_groups(labels, 63)
    assert [int((np.array(labels)[taken] == scene).sum()) for scene in "abc"] == [30, 30, 3]
    assert np.array_equal(taken, np.unique(taken))
    assert taken[:30].max() > 300, "not the first of the scene"
    assert len(evenly_over_groups(labels, 10_000)) == 533
    assert len(evenly_over_groups(labels, 1)) == 1
    with pytest.raises(ValueError, match="give at least 1"):
        evenly_over_groups(labels, 0)
    assert np.array_equal(taken, evenly_over_groups(labels, 63))


def test_every_distance_has_a_verdict(pool: Pool) -> None:
    real = pool.of(np.arange(40))
    distances: dict[str, Distance] = {name: entry[0] for name, entry in DISTANCES.items()}
    fake = pool.features.subset(pool.of(np.arange(40, 48)))
    judged = verdicts(
        fake, pool.features.subset(real), pool.scenes[real], distances, draws=19, bootstrap=5
    )
    assert set(judged) == set(DISTANCES)
    assert all(isinstance(verdict, Verdict) for verdict in judged.values())


@pytest.mark.parametrize("name", [name for name in DISTANCES if name != "E3_bright"])
def test_no_null_has_zeros_or_ties(pool: Pool, name: str) -> None:
    """A measure in steps, as a mode over bins, has a null of zeros that nothing is held against."""
    real = pool.of(np.arange(60))
    null = draw_null(pool.features.subset(real), pool.scenes[real], 24, draws=50)
    values = null.distances(DISTANCES[name][0])
    assert values.min() > 0
    assert np.unique(values).size == 50


def test_copies_are_held_against_tiles_of_other_scenes(pool: Pool) -> None:
    real = pool.of(np.arange(40))
    features, scenes = pool.features.subset(real), pool.scenes[real]
    null = draw_null(features, scenes, 16)
    assert null.counterpart.size == 16
    assert not set(scenes[null.counterpart]) & set(scenes[null.reference])
    distances = {"E5_lsd": DISTANCES["E5_lsd"][0]}
    found = verdicts(features, features, scenes, distances, copies=True, bootstrap=5)["E5_lsd"]
    assert isinstance(found, Verdict)
    assert found.tiles == most_tiles(scenes)
    assert found.raw > 0
    with pytest.raises(ValueError, match=f"10 copies of {real.size} real tiles"):
        verdicts(features.subset(np.arange(10)), features, scenes, distances, copies=True)
