"""E9: distances between two clouds of feature vectors, and shares of one inside the other.

Sources: Frechet distance of Gaussians, Dowson & Landau, J. Multivariate Analysis 12, 1982, as FID
(Heusel et al., NeurIPS 2017); kernel distance (Binkowski et al., ICLR 2018); precision and recall
(Kynkaanniemi et al., NeurIPS 2019); coverage (Naeem et al., ICML 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float64]
"""(N, d), or one value of each pair of vectors (N, M)."""

NEIGHBOURS = 5
"""Neighbours whose distance is the radius of a vector, for precision, recall and coverage."""


def frechet(x: Vectors, y: Vectors) -> float:
    """Frechet distance |mx - my|^2 + Tr(Cx + Cy - 2 (Cx Cy)^1/2) of two clouds.

    Raises:
        ValueError: a cloud has no more vectors than dimensions, so that its covariance is singular.
    """
    for cloud in (x, y):
        if len(cloud) <= cloud.shape[1]:
            raise ValueError(too_few_for_covariance(len(cloud), cloud.shape[1]))
    a, b = (_centred(cloud) for cloud in (x, y))
    # With a = q r, Cx Cy has the eigenvalues of r Cy r', which is symmetric.
    product = np.linalg.qr(a, mode="r") @ b.T
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh(product @ product.T), 0.0)).sum()
    offset = x.mean(0) - y.mean(0)
    return float(offset @ offset + np.square(a).sum() + np.square(b).sum() - 2 * roots)


def too_few_for_covariance(count: int, width: int) -> str:
    """Why so many vectors have no Frechet distance."""
    return (
        f"{count} images a side are too few for the covariance of {width} features: at least "
        f"{width + 1} are needed (evaluate.tiles, and real tiles of more scenes)"
    )


def _centred(cloud: Vectors) -> Vectors:
    return np.asarray((cloud - cloud.mean(0)) / np.sqrt(len(cloud) - 1))


def cubic_kernel(products: Vectors, width: int) -> Vectors:
    """(x . y / d + 1)^3 of each pair, from the inner products and the width d of the vectors."""
    return np.asarray((products / width + 1.0) ** 3)


def kernel_distance(xx: Vectors, xy: Vectors, yy: Vectors) -> float:
    """Unbiased squared maximum mean discrepancy; about 0 for two samples of one distribution.

    Args:
        xx: kernel of the first cloud with itself (N, N).
        xy: of the first with the second (N, M).
        yy: of the second with itself (M, M).

    Raises:
        ValueError: fewer than two vectors in a cloud.
    """
    n, m = xy.shape
    if min(n, m) < 2:
        raise ValueError("a kernel distance needs at least two vectors in each cloud")
    own = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(own - 2 * xy.mean())


def squared_distances(products: Vectors, x: Vectors, y: Vectors) -> Vectors:
    """|x - y|^2 of each pair (N, M), from inner products (N, M) and squared norms (N,), (M,)."""
    return np.maximum(x[:, None] + y - 2 * products, 0.0)


@dataclass(frozen=True)
class Shares:
    """How much of two clouds of vectors lies in one another, each 0 to 1."""

    precision: float
    """Share of generated vectors within the radius of a real one."""
    recall: float
    """Share of real vectors within the radius of a generated one."""
    coverage: float
    """Share of real vectors with a generated one within their own radius."""


def shares(
    generated: Vectors, across: Vectors, real: Vectors, neighbours: int = NEIGHBOURS
) -> Shares:
    """Precision, recall and coverage from squared distances.

    Args:
        generated: squared distances of generated vectors among themselves (N, N).
        across: of generated (rows) to real ones (N, M).
        real: of real ones among themselves (M, M).
        neighbours: number of the neighbour in its own cloud whose distance is the radius of a
            vector.

    Raises:
        ValueError: a cloud has no more vectors than `neighbours`.
    """
    if min(across.shape) <= neighbours:
        raise ValueError(
            f"{min(across.shape)} images a side are too few for {neighbours} neighbours of each"
        )
    radius_g, radius_r = (_radii(own, neighbours) for own in (generated, real))
    within = across <= radius_r
    return Shares(
        precision=float(within.any(1).mean()),
        recall=float((across <= radius_g[:, None]).any(0).mean()),
        coverage=float(within.any(0).mean()),
    )


def _radii(own: Vectors, neighbours: int) -> Vectors:
    """Squared distance to the neighbour of that number; the first one is the vector itself."""
    return np.asarray(np.partition(own, neighbours, axis=1)[:, neighbours])
