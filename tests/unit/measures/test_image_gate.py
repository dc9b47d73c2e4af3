"""What the gate of single images says, records and refuses, on tiles of correlated speckle."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import kstest

from sarhpc.measures.gate_limits import GateLimits, calibrate, rank
from sarhpc.measures.image_defects import colour_spread, measure_image
from sarhpc.measures.image_gate import ImageGate
from sarhpc.measures.near_duplicates import DuplicateIndex, distances, nearest, scene_code

PX, RATE = 64, 0.2


def speckle(rng: np.random.Generator) -> NDArray[np.float64]:
    """Amplitude of single-look speckle of a band below 1, on a smooth scene."""
    field = gaussian_filter(rng.normal(size=(2, PX, PX)), (0, 0.6, 0.6))
    return np.hypot(*field) * np.exp(0.3 * gaussian_filter(rng.normal(size=(PX, PX)), 8) * 16)


@pytest.fixture(scope="module")
def tiles() -> list[NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    return [speckle(rng) for _ in range(160)]


@pytest.fixture(scope="module")
def limits(tiles: list[NDArray[np.float64]]) -> GateLimits:
    return calibrate(tiles[:120], RATE)


def names(limits: GateLimits, image: NDArray[np.floating]) -> list[str]:
    return [reason.name for reason in ImageGate(limits).judge(image).reasons]


def test_broken_images_are_quarantined_with_what_is_broken(
    limits: GateLimits, tiles: list[NDArray[np.float64]]
) -> None:
    A = next(tile for tile in tiles if ImageGate(limits).judge(tile).accepted)
    spoiled = A.copy()
    spoiled[1, 2] = np.inf
    assert names(limits, spoiled) == ["not finite"]
    assert names(limits, -A) == ["negative"]
    assert names(limits, np.zeros_like(A)) == ["black"]
    assert names(limits, np.zeros((PX, PX), np.uint8)) == ["black"]
    assert names(limits, np.full((PX, PX), 255, np.uint8)) == ["constant"]
    gap = A.copy()
    gap[:20, :20] = 0
    assert names(limits, gap) == ["not measurable"]
    assert "blurred" in names(limits, gaussian_filter(A, 1))
    assert "too dark" in names(limits, A / 100)
    assert "too bright" in names(limits, A * 10)
    assert "saturated" in names(limits, np.minimum(A, np.median(A)))
    channels = np.full((PX, PX, 3), np.nan)
    assert not ImageGate(limits).judge(A, channels).accepted


def test_a_reason_tells_value_and_limit(
    limits: GateLimits, tiles: list[NDArray[np.float64]]
) -> None:
    verdict = ImageGate(limits).judge(tiles[0] / 100)
    text = next(reason.text for reason in verdict.reasons if reason.name == "too dark")
    assert f"{verdict.values['level']:.4g} dB" in text
    assert f"at least {limits.low['level']:.4g}" in text
    assert verdict.untested == ("colour",)


def test_copies_of_accepted_images_are_duplicates_and_rejected_ones_are_not_remembered(
    limits: GateLimits, tiles: list[NDArray[np.float64]]
) -> None:
    gate, rng = ImageGate(limits), np.random.default_rng(1)
    accepted = [tile for tile in tiles[:120] if gate.judge(tile).accepted]
    last = accepted[-1]
    assert [r.name for r in gate.judge(last).reasons] == ["duplicate"]
    near = last * np.exp(0.05 * rng.normal(size=last.shape))
    assert "near duplicate" in [r.name for r in gate.judge(near).reasons]
    assert "near duplicate" in [r.name for r in gate.judge(1.01 * last).reasons]
    blurred = gaussian_filter(tiles[0], 1)
    gate = ImageGate(limits)
    assert not gate.judge(blurred).accepted
    assert "duplicate" not in [r.name for r in gate.judge(blurred).reasons]


def test_colour_is_judged_where_the_limits_have_channels(
    tiles: list[NDArray[np.float64]],
) -> None:
    rng = np.random.default_rng(2)

    def channels(leak: float = 0.0) -> NDArray[np.float64]:
        found = 0.5 + rng.normal(scale=0.004, size=(PX, PX, 3))
        found[..., 0] += leak
        return found

    limits = calibrate(tiles[:120], RATE, decoded=(channels() for _ in tiles))
    A = next(tile for tile in tiles if ImageGate(limits).judge(tile, channels()).accepted)
    found = ImageGate(limits).judge(A, channels(0.05)).reasons
    assert [reason.name for reason in found] == ["colour leakage"]
    assert ImageGate(limits).judge(A).untested == ("colour",)
    assert colour_spread(np.repeat(A[..., None], 3, axis=2)) == pytest.approx(0, abs=1e-12)


def test_limits_are_the_same_from_json(limits: GateLimits) -> None:
    written = json.loads(json.dumps(limits.to_json()))
    assert GateLimits.from_json(written) == limits
    assert (written["tiles"], written["rate"], written["tests"]) == (120, RATE, limits.tests)
    with pytest.raises(ValueError, match="schema"):
        GateLimits.from_json({**written, "schema": "other"})
    with pytest.raises(ValueError, match="calibrate again"):
        GateLimits.from_json({name: v for name, v in written.items() if name != "high"})
    with pytest.raises(ValueError, match="calibrate again"):
        GateLimits.from_json({**written, "low": {"level": float("nan")}})


def test_too_few_tiles_for_the_rate_are_refused_with_how_many_are_needed(
    tiles: list[NDArray[np.float64]],
) -> None:
    with pytest.raises(ValueError, match="give at least 799, or a rate of"):
        calibrate(tiles[:20], 0.01)
    assert rank(799, 0.01, 8) == 799
    with pytest.raises(ValueError, match="too few"):
        rank(798, 0.01, 8)
    with pytest.raises(ValueError, match="between 0 and 1"):
        rank(100, 1.0, 8)
    with pytest.raises(ValueError, match=r"real tile 1: .*NaN"):
        calibrate([tiles[0], np.full((PX, PX), np.nan)], 0.5)


def test_smaller_images_and_a_full_corpus_are_refused(
    limits: GateLimits, tiles: list[NDArray[np.float64]]
) -> None:
    with pytest.raises(ValueError, match="at least 64 px"):
        ImageGate(limits).judge(tiles[0][:60])
    index = DuplicateIndex(1)
    index.add(tiles[0])
    with pytest.raises(ValueError, match="full at 1 images"):
        index.add(tiles[1])


def test_the_rate_of_one_set_of_limits_has_the_law_that_is_stated() -> None:
    """Four tests of independent uniform values, 200 tiles, rejecting 10 %, in 400 sets."""
    rng, tests, tiles, rate = np.random.default_rng(3), 4, 200, 0.1
    place = rank(tiles, rate, tests)
    beyond = tests * (tiles + 1 - place)
    true = 1 - np.sort(rng.uniform(size=(400, tests, tiles)), axis=2)[:, :, place - 1]
    limits = GateLimits({}, dict.fromkeys("abc", 0.0), 0, rate, tiles, tiles, PX)
    low, high = limits.rate_interval()
    total = true.sum(1)
    # 400 sets: a binomial spread of 1.5 %.
    assert np.mean((total > low) & (total < high)) == pytest.approx(0.9, abs=0.045)
    assert total.mean() == pytest.approx(beyond / (tiles + 1), rel=0.05)
    assert total.mean() <= rate * 1.05
    assert kstest(true[:, 0], "beta", (beyond // tests, tiles + 1 - beyond // tests)).pvalue > 1e-3


def test_codes_ignore_gain_and_differ_by_half_their_bits_between_scenes(
    tiles: list[NDArray[np.float64]],
) -> None:
    codes = np.stack([scene_code(tile) for tile in tiles])
    assert (scene_code(4 * tiles[0]) == codes[0]).all()
    away = np.concatenate([distances(codes[n + 1 :], code) for n, code in enumerate(codes)])
    # 12720 pairs, each with a spread of at least 8 bits of 256.
    assert away.mean() == pytest.approx(128, abs=1)
    assert nearest(codes).min() > 64
    with pytest.raises(ValueError, match="at least 2"):
        nearest(codes[:1])
    assert scene_code(np.ones((37, 50))).shape == (4,)


def test_an_image_without_speckle_has_infinite_looks() -> None:
    rng = np.random.default_rng(4)
    flat = 1 + 1e-4 * rng.normal(size=(PX, PX))
    assert measure_image(flat)["looks"] == np.inf
