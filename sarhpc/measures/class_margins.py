"""Margin of an image: by how much the class that it should show is nearer to it than any other.

The vectors are those of a model that reads images and texts (E10). An image far on the wrong side
shows another class.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sarhpc.measures.gate_limits import rank

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]

_DIGITS = 7
"""Significant digits of a vector of a class, so that one read from JSON is the one written."""


def class_vectors(texts: Vectors, labels: Labels, classes: int) -> NDArray[np.float64]:
    """Unit vector (C, D) of each class: the mean of the vectors (N, D) of its captions."""
    means = np.stack([texts[labels == label].mean(0) for label in range(classes)])
    means = means.astype(np.float64)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return np.array([[float(f"{value:.{_DIGITS}g}") for value in mean] for mean in means])


def class_margins(
    images: Vectors, vectors: NDArray[np.float64], asked: Labels
) -> tuple[NDArray[np.float64], Labels]:
    """Similarity (N,) to the asked class less that to the nearest other, and the number of that.

    A value depends on its own image alone, to the last bit.

    Args:
        images: unit vectors (N, D).
        vectors: of two classes or more (C, D).
        asked: number of the class of each image (N,).
    """
    similarity = (images[:, None].astype(np.float64) * vectors[None]).sum(axis=2)
    rows = np.arange(len(images))
    own = similarity[rows, asked].copy()
    similarity[rows, asked] = -np.inf
    nearest = similarity.argmax(axis=1)
    return own - similarity[rows, nearest], np.asarray(nearest, np.int64)


def least_margin(margins: NDArray[np.float64], rate: float) -> float:
    """Margin below which at most the share `rate` of further images of a class lie.

    An order statistic: it holds of any distribution, for images exchangeable with these.

    Raises:
        ValueError: there are too few of them for the rate.
    """
    return float(np.sort(margins)[len(margins) - rank(len(margins), rate, 1)])


def balanced_accuracy(asked: Labels, read: Labels) -> float:
    """Mean over the classes asked for of the share of their images that are read as theirs."""
    return float(np.mean([(read[asked == label] == label).mean() for label in np.unique(asked)]))
