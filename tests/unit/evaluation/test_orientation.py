"""E8 as part of an evaluation."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sarhpc.evaluation.orientation import MOST_TILES, asked, judge_orientation, middle


def shadowed(seed: int, side: int = 96) -> np.ndarray:
    """Speckle with bright points, each with a shadow towards far range."""
    rng = np.random.default_rng(seed)
    intensity = np.ones((side, side))
    rows, columns = rng.integers(4, side - 7, 24), rng.integers(4, side - 16, 24)
    for row, column in zip(rows, columns, strict=True):
        intensity[row : row + 4, column : column + 4] = 30
        intensity[row : row + 4, column + 4 : column + 14] = 0.02
    return np.sqrt(intensity * rng.exponential(size=intensity.shape))


REAL = [shadowed(seed) for seed in range(32)]
SCENES = [f"scene {number % 8}" for number in range(32)]


@pytest.mark.slow
def test_sets_are_told_from_their_range_flip_and_not_from_their_azimuth_flip() -> None:
    other = [shadowed(100 + seed) for seed in range(24)]
    sets = {
        "alike": other,
        "range flip": [tile[:, ::-1] for tile in other],
        "azimuth flip": [tile[::-1] for tile in other],
        "few": other[:3],
    }
    found = judge_orientation(REAL, SCENES, sets, steps=60)
    assert found.verdict == "shown"
    assert found.range is not None
    assert found.range.value > 0.9
    verdicts = {name: one.verdict for name, one in found.sets.items()}
    assert verdicts == {
        "alike": "as real",
        "azimuth flip": "as real",
        "range flip": "reversed",
        "few": "undecided",
    }
    assert any("reversed" in note for note in found.notes())
    assert json.loads(json.dumps(found.to_json()))["sets"]["alike"]["unflipped"]["tiles"] == 24


@pytest.mark.parametrize("scenes", [["one"] * 32, [*SCENES[:-1], ""]])
def test_too_few_or_unknown_scenes_are_undecided_and_cost_nothing(scenes: list[str]) -> None:
    found = judge_orientation(REAL, scenes, {"any": REAL}, steps=10**9)
    assert found.verdict == "undecided"
    assert "6 are needed" in found.reason
    assert found.sets == {}
    assert len(found.notes()) == 1


def test_tiles_that_cannot_be_asked_are_undecided_by_their_reason() -> None:
    found = judge_orientation([np.ones((64, 64))] * 32, SCENES, {}, steps=2)
    assert found.verdict == "undecided"
    assert "constant" in found.reason


def test_at_most_200_tiles_and_their_middle_are_asked() -> None:
    assert asked(0) == []
    assert asked(3) == [0, 1, 2]
    many = asked(1000)
    assert (len(many), many[0], many[-1]) == (MOST_TILES, 0, 999)
    tile = np.arange(300 * 40).reshape(300, 40)
    np.testing.assert_array_equal(middle(tile), tile[22:278])
