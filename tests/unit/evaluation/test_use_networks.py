"""What networks of E12 learn: planted gains are found, noise and shuffled labels bring none."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from known_textures import textures, use_data

from sarhpc.evaluation.use.data import UNKNOWN, UseData
from sarhpc.evaluation.use.fit import fit
from sarhpc.evaluation.use.result import GAIN, UseResult, combine
from sarhpc.evaluation.use.settings import MIXED, ONLY_SYNTHETIC, REAL, SHUFFLED, FitSettings

STEPS, FEW, SEEDS = 60, 0.05, 3
NOISE = np.random.default_rng(0).normal(-20, 6, (120, 32, 32)).astype(np.float16)


def result_of(data: UseData, settings: list[tuple[str, float]]) -> UseResult:
    fits: list[dict[str, Any]] = []
    for setting, share in settings:
        for seed in range(SEEDS):
            asked = FitSettings(setting, share, seed)
            fits.append({**asked.to_json(), **asdict(fit(data, asked, STEPS))})
    facts = {
        "task": "classification",
        "classes": list(data.classes),
        "images": {part: len(images) for part, images in data.images.items()},
        "groups": {part: len({*names}) for part, names in data.groups.items()},
        "per_class": dict.fromkeys(data.classes, 30),
        "grouped": True,
        "notes": [],
        "pixels": "amplitude",
        "left_out": {},
    }
    return combine(facts, fits)


def value(result: UseResult, setting: str) -> float:
    return next(one.value for one in result.scores if one.setting == setting)


FEW_LABELS = [(REAL, FEW), (MIXED, FEW), (ONLY_SYNTHETIC, 0.0)]


@pytest.mark.slow
def test_a_planted_gain_is_found_and_shuffled_labels_stay_at_chance() -> None:
    found = result_of(use_data(textures(3, 40)), [*FEW_LABELS, (SHUFFLED, FEW * 2)])
    [gain] = found.gains
    assert (gain.labels, gain.verdict) == (6, GAIN)
    assert gain.value > 0.1
    assert value(found, ONLY_SYNTHETIC) > 0.9
    assert value(found, SHUFFLED) == pytest.approx(found.chance, abs=0.1)
    assert found.ratio is not None
    assert found.ratio.value > 1


@pytest.mark.slow
def test_noise_brings_no_gain() -> None:
    labels = np.tile(np.arange(3), 40).astype(np.uint8)
    found = result_of(use_data((NOISE, labels)), FEW_LABELS)
    assert found.gains[0].verdict != GAIN
    assert value(found, ONLY_SYNTHETIC) == pytest.approx(found.chance, abs=0.15)


def test_a_network_is_the_same_each_time_whatever_was_drawn_before() -> None:
    data = use_data(textures(3, 10), train=10, test=10)
    asked = FitSettings(MIXED, 0.5, 1)
    one = fit(data, asked, 6)
    np.random.default_rng().random()
    assert fit(data, asked, 6) == one
    assert fit(data, replace(asked, seed=2), 6) != one


def test_the_same_real_labels_are_learned_alone_and_beside_synthetic_images() -> None:
    data = use_data(textures(3, 10), train=10, test=10)
    alone, beside = (fit(data, FitSettings(setting, 0.5, 0), 2) for setting in (REAL, MIXED))
    assert (alone.labels, alone.synthetic) == (15, 0)
    assert (beside.labels, beside.synthetic) == (15, 30)
    # What learned from synthetic images is not tested on them.
    assert (set(alone.confusions), set(beside.confusions)) == ({"test", "synthetic"}, {"test"})


@pytest.mark.slow
def test_the_class_of_each_pixel_is_learned() -> None:
    data = use_data(textures(3, 10), train=10, test=10)
    rng = np.random.default_rng(5)
    images, targets = {}, {}
    for part, before in data.images.items():
        planes = (rng.random((len(before), 4, 4)) < 0.5).repeat(8, 1).repeat(8, 2).astype(np.uint8)
        speckle = 10 * np.log10(np.maximum(rng.exponential(size=planes.shape), 1e-4))
        images[part] = (speckle - 20 + 6 * planes).astype(np.float16)
        planes[:, :4] = UNKNOWN
        targets[part] = planes
    data = replace(data, classes=("dark", "bright"), images=images, targets=targets)
    found = fit(data, FitSettings(REAL, 1.0, 0), 40)
    table = np.zeros((2, 2))
    for _, true, read, count in found.confusions["test"]:
        table[true, read] += count
    assert table.sum() == 30 * 28 * 32
    assert np.diag(table).sum() / table.sum() > 0.8
