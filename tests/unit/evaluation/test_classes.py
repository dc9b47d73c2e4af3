from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hpc.errors import DataError
from sarhpc.evaluation.classes import Conformity, judge, train_classifier


def textures(seed: int, n: int) -> tuple[np.ndarray, list[str]]:
    """Dark smooth `water` and bright speckled `town`, (n, 64, 64)."""
    rng = np.random.default_rng(seed)
    names = ["water" if i % 2 else "town" for i in range(n)]
    means = np.array([4.0 if name == "water" else 60.0 for name in names])
    tiles = rng.rayleigh(means[:, None, None], (n, 64, 64))
    return np.clip(tiles, 0, 255).astype(np.uint8), names


@pytest.mark.slow
def test_conformity_is_high_for_true_labels_and_chance_for_shuffled_ones() -> None:
    tiles, labels = textures(0, 64)
    held_out, held_out_labels = textures(1, 32)
    classifier = train_classifier(tiles, labels, held_out, held_out_labels, epochs=8)
    assert classifier.real.balanced_accuracy > 0.95
    right = judge(classifier, held_out, held_out_labels)
    wrong = judge(classifier, held_out, held_out_labels[::-1])
    assert right.balanced_accuracy > 0.95
    assert wrong.balanced_accuracy < 0.05
    assert np.array(right.confusion).sum() == right.images == 32


def test_one_class_cannot_be_told_apart() -> None:
    tiles, _ = textures(0, 8)
    with pytest.raises(DataError, match="single class"):
        train_classifier(tiles, ["water"] * 8, tiles, ["water"] * 8)


def test_a_classifier_that_reads_real_tiles_badly_is_not_trusted() -> None:
    good = Conformity(0.9, {"town": 0.9, "water": 0.9}, [[45, 5], [5, 45]], 100)
    assert good.trusted
    assert not replace(good, recall={"town": 1.0, "water": 0.5}).trusted
    assert not replace(good, confusion=[[99, 1], [0, 19]]).trusted


def test_a_class_seen_only_among_held_out_tiles_counts_as_missed() -> None:
    tiles, labels = textures(0, 64)
    held_out, held_out_labels = textures(1, 32)
    labels_of_three = ["forest", *held_out_labels[1:]]
    classifier = train_classifier(tiles, labels, held_out, labels_of_three, epochs=2)
    assert classifier.real.recall["forest"] == 0.0
    assert not classifier.real.trusted
