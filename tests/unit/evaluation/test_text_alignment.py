from __future__ import annotations

import numpy as np
import pytest

from sarhpc.measures.text_alignment import (
    classified,
    clip_score,
    macro_f1,
    preferred,
    retrieved,
)


def unit(rng: np.random.Generator, rows: int, width: int = 16) -> np.ndarray:
    values = rng.normal(size=(rows, width))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def test_the_own_caption_is_found_where_vectors_agree_and_by_chance_where_they_do_not() -> None:
    rng = np.random.default_rng(0)
    texts = unit(rng, 3000)
    captions = [f"caption {number}" for number in range(3000)]
    assert retrieved(texts[:100], texts[:100], captions[:100]).mean() == 1
    chance = retrieved(unit(rng, 3000), texts, captions).mean()
    assert chance == pytest.approx(0.1, abs=0.02)
    assert retrieved(texts[:100], texts[:100], captions[:100], 4).shape == (100,)


def test_the_same_text_on_another_image_is_no_rival() -> None:
    texts = unit(np.random.default_rng(1), 6)
    doubled = np.repeat(texts, 5, axis=0)
    captions = [f"caption {number // 5}" for number in range(30)]
    assert retrieved(doubled, doubled, captions, 6).mean() == 1
    with pytest.raises(ValueError, match="6 different captions, and R@1 of 10 needs 10"):
        retrieved(doubled, doubled, captions)


def test_the_score_is_a_hundred_cosines_without_the_negative_ones() -> None:
    images = np.array([[1, 0], [0.6, 0.8], [1, 0]], np.float32)
    texts = np.array([[1, 0], [1, 0], [-1, 0]], np.float32)
    assert clip_score(images, texts) == pytest.approx([100, 60, 0], abs=1e-4)


def test_macro_f1_weighs_classes_alike() -> None:
    asked = np.array([0] * 90 + [1] * 10)
    assert macro_f1(asked, asked) == 1
    # Everything read as the frequent class: F1 of 2 * 90 / 190 and of 0.
    assert macro_f1(asked, np.zeros(100, np.int64)) == pytest.approx(90 / 190)


def test_images_are_of_the_nearest_class() -> None:
    classes = np.eye(3, dtype=np.float32)
    assert classified(classes[[2, 0, 1, 1]], classes).tolist() == [2, 0, 1, 1]


def test_the_relation_is_right_where_the_own_text_is_nearer() -> None:
    images = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    own, swapped = np.array([[[1, 0]] * 3, [[0, 1]] * 3], np.float32)
    assert preferred(images, own, swapped).tolist() == [1, 0, 1]
    assert preferred(images, own, own).tolist() == [0.5] * 3
