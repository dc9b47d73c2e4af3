"""E10: how images and their captions fit, from vectors of a model that reads both.

Every function takes unit vectors or their similarities and gives one value an image, so that
intervals and controls are made of them alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Values = NDArray[np.float64]


def clip_score(images: Vectors, texts: Vectors) -> Values:
    """100 times the cosine (N,) between each image and its own caption, 0 where negative.

    CLIPScore of Hessel et al. (2021) without its factor of 2.5.
    """
    cosine = np.einsum("nd,nd->n", images.astype(np.float64), texts.astype(np.float64))
    return np.asarray(100.0 * np.maximum(cosine, 0.0))


def retrieved(
    images: Vectors, texts: Vectors, captions: Sequence[str], among: int = 10, seed: int = 0
) -> Values:
    """1 (N,) where the own caption of an image is nearest among `among`, else 0; chance 1/among.

    R-precision of Xu et al. (2018): the others are those of images drawn at random, each another
    text than the own and than each other, so that frequent texts are drawn most.

    Raises:
        ValueError: there are fewer different captions than `among`.
    """
    different = len(set(captions))
    if different < among:
        raise ValueError(f"{different} different captions, and R@1 of {among} needs {among}")
    similarity = images.astype(np.float64) @ texts.astype(np.float64).T
    found = np.empty(len(captions))
    for number, own in enumerate(captions):
        rng = np.random.Generator(np.random.PCG64([seed, number]))
        others: dict[str, int] = {}
        for other in rng.permutation(len(captions)):
            if captions[other] != own and captions[other] not in others:
                others[captions[other]] = int(other)
            if len(others) == among - 1:
                break
        rivals = similarity[number, list(others.values())]
        found[number] = similarity[number, number] > rivals.max()
    return found


def classified(images: Vectors, classes: Vectors) -> NDArray[np.int64]:
    """Number (N,) of the class whose vector of `classes` (C, D) is nearest to each image."""
    return np.asarray((images @ classes.T).argmax(1), np.int64)


def macro_f1(asked: NDArray[np.int64], read: NDArray[np.int64]) -> float:
    """Mean over the classes asked for of the harmonic mean of precision and recall."""
    scores = []
    for label in np.unique(asked):
        both = np.sum((asked == label) & (read == label))
        scores.append(2.0 * both / (np.sum(asked == label) + np.sum(read == label)))
    return float(np.mean(scores))


def preferred(images: Vectors, own: Vectors, swapped: Vectors) -> Values:
    """1 (N,) where the own text is nearer to the image than the same with its relation swapped.

    One half where both are equally near; chance is one half.
    """
    lead = np.einsum("nd,nd->n", images.astype(np.float64), own.astype(np.float64) - swapped)
    return np.asarray(0.5 * (1.0 + np.sign(lead)))
