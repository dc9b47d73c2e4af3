"""Measures of sets of radar images, with intervals over their layouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.measures.looks import enl_mode, local_enl_histogram
from sarhpc.measures.speckle_correlation import lag_products, speckle_autocorrelation

Array = NDArray[np.float64]
DRAWS = 200


def enl_of(images: Sequence[Array], looks: int) -> Callable[[NDArray[np.intp]], float]:
    """E1 of the images of some layouts, by their numbers."""
    histograms = np.array([local_enl_histogram(image) for image in images])
    products = np.array([lag_products(image) for image in images])

    def measured(chosen: NDArray[np.intp]) -> float:
        correlation = speckle_autocorrelation(products[chosen].mean(0), looks)
        return enl_mode(histograms[chosen].mean(0), correlation)

    return measured


def lag_1_of(images: Sequence[Array], looks: int) -> Callable[[NDArray[np.intp]], float]:
    """E4 at lag 1, mean of azimuth and range, likewise."""
    products = np.array([lag_products(image) for image in images])
    return lambda chosen: float(
        speckle_autocorrelation(products[chosen].mean(0), looks)[:, 0].mean()
    )


def rise(
    lower: Callable[[Any], float], upper: Callable[[Any], float], layouts: int
) -> tuple[float, float]:
    """95 % interval of the rise from one measure to another, by resampling layouts in pairs."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, layouts, (DRAWS, layouts))
    found = np.array([upper(c) - lower(c) for c in chosen])
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of one value per layout, by Student's t."""
    from scipy.stats import t

    found = np.asarray(values)
    half = t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found))
    return float(found.mean() - half), float(found.mean() + half)
