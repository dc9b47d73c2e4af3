"""E9: distances between clouds against closed forms, scipy, and counting by hand."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial
from PIL import Image

from sarhpc.archive.procedural.config import ProceduralConfig
from sarhpc.archive.procedural.simulate import scene_ids, simulate_scene
from sarhpc.measures.feature_distances import cubic_kernel, frechet, kernel_distance, shares
from sarhpc.measures.feature_nulls import (
    ALL,
    FRECHET,
    KERNEL,
    SHARES,
    FeatureVerdict,
    NoNumber,
    Pairing,
    evenly,
    judge_vectors,
    pair,
)
from sarhpc.measures.feature_vectors import VECTOR_NAMES, standardised, tile_vectors
from sarhpc.measures.features import Features, measure
from sarhpc.measures.nulls import NoVerdict


def cloud(seed: int, count: int = 60, width: int = 12, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + shift


def scipy_frechet(x: np.ndarray, y: np.ndarray) -> float:
    cx, cy = np.cov(x.T), np.cov(y.T)
    offset = x.mean(0) - y.mean(0)
    return float(offset @ offset + np.trace(cx + cy - 2 * scipy.linalg.sqrtm(cx @ cy).real))


def kernel_of(x: np.ndarray, y: np.ndarray) -> float:
    pairs = (x @ x.T, x @ y.T, y @ y.T)
    return kernel_distance(*(cubic_kernel(one, x.shape[1]) for one in pairs))


def test_the_frechet_distance_is_that_of_scipy_and_of_the_closed_form() -> None:
    x, y = cloud(1), cloud(2, count=80, shift=0.5)
    assert frechet(x, y) == pytest.approx(scipy_frechet(x, y), rel=1e-6)
    assert frechet(x, x) == pytest.approx(0.0, abs=1e-6)
    # Of a cloud scaled by 2 and moved by 3: 12 * 9 + Tr (1 - 2)^2 C.
    moved = 2 * (x - x.mean(0)) + x.mean(0) + 3.0
    assert frechet(moved, x) == pytest.approx(108.0 + np.trace(np.cov(x.T)), rel=1e-6)


def test_no_frechet_distance_of_fewer_images_than_a_covariance_needs() -> None:
    with pytest.raises(ValueError, match=r"12 images a side .* at least 13"):
        frechet(cloud(1, count=12), cloud(2))
    assert np.isfinite(frechet(cloud(1, count=13), cloud(2, count=13)))


def test_the_kernel_distance_is_that_of_its_sums() -> None:
    x, y = cloud(1, count=7), cloud(2, count=9)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 12 + 1) ** 3)

    own_x = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    own_y = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    across = np.mean([k(a, b) for a in x for b in y])
    assert kernel_of(x, y) == pytest.approx(own_x + own_y - 2 * across)


def test_shares_are_those_counted_by_hand() -> None:
    x, y = cloud(3, count=40, width=4), cloud(4, count=40, width=4, shift=0.7)
    xx, xy, yy = (scipy.spatial.distance.cdist(a, b) for a, b in ((x, x), (x, y), (y, y)))
    radius_x, radius_y = (np.sort(one, axis=1)[:, 5] for one in (xx, yy))
    precision = np.mean([any(xy[i, j] <= radius_y[j] for j in range(40)) for i in range(40)])
    recall = np.mean([any(xy[i, j] <= radius_x[i] for i in range(40)) for j in range(40)])
    coverage = np.mean([any(xy[i, j] <= radius_y[j] for i in range(40)) for j in range(40)])
    found = shares(xx**2, xy**2, yy**2)
    assert (found.precision, found.recall, found.coverage) == (precision, recall, coverage)
    assert 0 < found.precision < 1
    far = shares(xx**2, xy**2 + 1e6, yy**2)
    assert (far.precision, far.recall, far.coverage) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="5 images a side are too few for 5 neighbours"):
        shares(xx[:5, :5], xy[:5], yy)


def test_one_mode_of_two_has_precision_without_recall_and_coverage() -> None:
    real = np.concatenate([cloud(5, 40, 2), cloud(5, 40, 2, shift=100.0)])
    half = real[:40] + 0.01
    products = half @ half.T, half @ real.T, real @ real.T
    pairing = Pairing(80, np.arange(80), (), reason="none")
    twice = np.concatenate([half, half + 0.01])
    found = judge_vectors(twice, real, pairing, SHARES)
    values = {name: one.raw for name, one in found.items() if isinstance(one, NoVerdict)}
    assert values["precision"] == 1.0
    assert values["recall"] == pytest.approx(0.5, abs=0.05)
    assert values["coverage"] == pytest.approx(0.5, abs=0.05)
    assert products[0].shape == (40, 40)


def band_limited_blur(A: np.ndarray, sigma_px: float) -> np.ndarray:
    """Intensity under a Gaussian of so many pixels, exactly, at the band of the image too."""
    power = np.square(A, dtype=float)
    row, column = (np.fft.fftfreq(side) for side in A.shape)
    gain = np.exp(-2 * (np.pi * sigma_px) ** 2 * (row[:, None] ** 2 + column**2))
    return np.sqrt(np.maximum(np.fft.ifft2(np.fft.fft2(power) * gain).real, power.min() / 4))


def procedural(_: Path) -> list[np.ndarray]:
    cfg = ProceduralConfig(seed=11, scenes=120, scenes_per_line=1, size_px=64, optical=False)
    return [np.abs(simulate_scene(cfg, name).sar) for name in scene_ids(cfg)]


def mstar(test_data: Path) -> list[np.ndarray]:
    with tarfile.open(test_data / "mstar_soc" / "train.tar") as chips:
        names = sorted(n for n in chips.getnames() if n.lower().endswith((".jpg", ".jpeg")))
        files = [chips.extractfile(name) for name in names[::16]]
        codes = [np.asarray(Image.open(io.BytesIO(f.read())).convert("L")) for f in files if f]
    middle = [code[: 2 * 64, : 2 * 64] for code in codes if min(code.shape) >= 128]
    return [np.maximum(code[32:96, 32:96].astype(float), 0.5) / 255 for code in middle]


def clouds_of(ours: list[np.ndarray], real: Features) -> tuple[np.ndarray, np.ndarray]:
    vectors = tile_vectors(real)
    return standardised(tile_vectors(measure(ours)), vectors), standardised(vectors, vectors)


@pytest.fixture(scope="module", params=[procedural, mstar])
def tiles(request: pytest.FixtureRequest) -> list[np.ndarray]:
    folder = request.getfixturevalue("test_data") if request.param is mstar else Path()
    return request.param(folder)  # type: ignore[no-any-return]


def parted(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(count)
    return order[: count // 3], order[count // 3 :]


@pytest.fixture(scope="module")
def measured(tiles: list[np.ndarray]) -> Features:
    return measure(tiles)


@pytest.mark.slow
def test_the_kernel_distance_of_real_halves_is_zero_within_two_sigma(measured: Features) -> None:
    deviations = []
    for seed in range(12):
        ours, theirs = (measured.subset(half) for half in parted(len(measured), seed))
        vectors = tile_vectors(theirs)
        pairing = pair(theirs, range(len(theirs)), len(ours), seed)
        x = standardised(tile_vectors(ours), vectors)[evenly(len(ours), pairing.tiles)]
        [found] = judge_vectors(x, standardised(vectors, vectors), pairing, (KERNEL,)).values()
        assert isinstance(found, FeatureVerdict)
        deviations.append(found.raw / found.null_deviation)
    print(f"kernel distance of halves over sigma: {np.round(deviations, 1).tolist()}")
    # 95 % of the halves: at most 2 of 12 with a probability of 0.98.
    assert sum(abs(value) > 2 for value in deviations) <= 2
    assert abs(np.mean(deviations)) <= 0.75


@pytest.mark.slow
def test_a_blur_sets_tiles_apart_the_more_the_stronger_it_is(
    tiles: list[np.ndarray], measured: Features
) -> None:
    numbers, others = parted(len(tiles), 0)
    ours, real = [tiles[n] for n in numbers], measured.subset(others)
    pairing = pair(real, range(len(real)), len(ours))
    found = {}
    for blur in (0.0, 0.2, 0.4, 0.6):
        x, y = clouds_of([band_limited_blur(A, blur) for A in ours], real)
        found[blur] = judge_vectors(x[evenly(len(x), pairing.tiles)], y, pairing)
    values = {name: [of[name].raw for of in found.values()] for name in ALL}  # type: ignore[union-attr]
    print(values)
    for name in (FRECHET, KERNEL):
        assert values[name] == sorted({*values[name]}), name
        strongest = found[0.6][name]
        assert isinstance(strongest, FeatureVerdict)
        assert strongest.p_value <= 0.01
    for name in SHARES:
        assert values[name] == sorted(values[name], reverse=True), name
        assert values[name][-1] < values[name][0], name


def test_a_set_without_a_null_has_its_numbers_at_equal_sizes_and_the_reason() -> None:
    tiles = np.random.default_rng(0).rayleigh(0.2, (30, 32, 32))
    real = measure(tiles[:20])
    pairing = pair(real, None, 10)
    assert (pairing.tiles, len(pairing.reference)) == (10, 10)
    found = judge_vectors(*clouds_of([*tiles[20:]], real), pairing)
    assert isinstance(found[FRECHET], NoNumber)
    assert f"covariance of {len(VECTOR_NAMES)} features" in found[FRECHET].reason
    assert isinstance(found[KERNEL], NoVerdict)
    assert "scenes of the real tiles are not known" in found[KERNEL].reason
    few = pair(real, ["a", "b"] * 10, 10)
    assert "null needs 8" in few.reason
    with pytest.raises(ValueError, match="sizes must agree"):
        judge_vectors(cloud(1), cloud(2), pairing)


def test_p_values_of_halves_are_spread_evenly() -> None:
    rng = np.random.default_rng(8)
    noise = measure(rng.rayleigh(0.2, (60, 32, 32)))
    low = 0
    for seed in range(20):
        vectors = cloud(seed, count=90, width=5)
        pairing = pair(noise, range(60), 30, seed)
        found = judge_vectors(vectors[60:], vectors[:60], pairing, (FRECHET, KERNEL))
        low += sum(one.p_value <= 0.05 for one in found.values())  # type: ignore[union-attr]
    assert low <= 6, "of 40"


def test_an_entry_that_is_alike_in_all_real_tiles_counts_in_its_own_unit() -> None:
    real = np.array([[1.0, 5.0], [3.0, 5.0]])
    assert standardised(np.array([[4.0, 7.0]]), real).tolist() == [[2.0, 2.0]]
