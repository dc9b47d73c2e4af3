"""Log-cumulants of intensity: cumulants of ln I, and what a sample says about them.

Nicolas, Traitement du Signal 19(3), 2002 (second-kind statistics); Anfinsen and Eltoft, IEEE TGRS
49(6), 2011 (their sampling distribution). A gain shifts k1 and leaves k2 and k3 as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import polygamma

from sarhpc.measures.intensity import Array, require_intensity


@dataclass(frozen=True)
class LogCumulants:
    """Cumulants of ln I (nepers of power), and how k2 and k3 of such samples scatter."""

    k1: float
    k2: float
    k3: float
    covariance: tuple[float, float, float]
    """Sampling variance of k2, covariance of k2 and k3, variance of k3."""


def log_cumulants(intensity: ArrayLike, independent: float | None = None) -> LogCumulants:
    """Log-cumulants of a sample, with the covariance of k2 and k3 by the delta method.

    Var k2 = (m4 - m2^2)/n, Cov = (m5 - 4 m2 m3)/n, Var k3 = (m6 - m3^2 - 6 m4 m2 + 9 m2^3)/n with m
    the central moments of ln I and n the number of independent samples.

    Args:
        intensity: power, linear, any shape, all positive. Codes of 8 bits do not serve: rounding
            the darkest pixels moves k3 by more than any law (-1.3 instead of -0.5 on GOTCHA).
        independent: n; the number of values unless said. Correlated speckle hardly lowers it: the
            covariance of (ln I - k1)^2 between two pixels has no term in rho, only in rho^2 and
            above, so all pixels count at a band of 0.8 and two thirds at 0.5. Texture does.

    Raises:
        ValueError: fewer than 64 values, NaN, zeros, negatives, constant, or n not in 2 ... size.
    """
    x = np.log(require_intensity(intensity, positive=True))
    n = float(x.size if independent is None else independent)
    if not 2 <= n <= x.size:
        raise ValueError(f"independent samples: {n:g} given for {x.size} values, 2 to {x.size} fit")
    k1 = float(x.mean())
    c = (x - k1).ravel()
    square = c * c
    cube = square * c
    m2, m3 = float(square.mean()), float(cube.mean())
    m4, m5, m6 = (
        float(a @ b) / c.size for a, b in ((square, square), (square, cube), (cube, cube))
    )
    covariance = (
        (m4 - m2**2) / n,
        (m5 - 4 * m2 * m3) / n,
        (m6 - m3**2 - 6 * m4 * m2 + 9 * m2**3) / n,
    )
    return LogCumulants(k1, m2, m3, covariance)


def inverse_trigamma(value: float) -> float:
    """Argument at which psi_1 has `value`, to 1e-12 relative; infinity for 0 and below.

    Newton's iteration on 1/psi_1, which is nearly linear: it approaches from below and never
    leaves x > 0.
    """
    if value <= 0:
        return float("inf")
    x = 0.5 + 1.0 / value if value < 1e7 else value**-0.5
    for _ in range(60):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1.0 - trigamma / value) / float(polygamma(2, x))
        x += step
        if abs(step) <= 1e-12 * x:
            break
    return x


def diagram_distance(
    a: Array, b: Array, weights_a: Array | None = None, weights_b: Array | None = None
) -> float:
    """2-Wasserstein distance of two clouds of (k2, k3), one point per tile, each taken as Gaussian.

    W^2 = |mu_a - mu_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2) (Dowson and Landau, 1982); for 2 x 2
    matrices the last trace is sqrt(tr AB + 2 sqrt(det A det B)). In units of the diagram.

    Args:
        a: (N, 2) points (k2, k3) of tiles.
        b: (M, 2) those of the other set.
        weights_a: (N,) weights of the tiles, equal unless given.
        weights_b: (M,) likewise.

    Raises:
        ValueError: fewer than 3 points, or NaN among them.
    """
    (mean_a, A), (mean_b, B) = (_cloud(*cloud) for cloud in ((a, weights_a), (b, weights_b)))
    determinants = max(0.0, float(np.linalg.det(A) * np.linalg.det(B)))
    joint = float(np.sqrt(max(0.0, float(np.trace(A @ B)) + 2 * determinants**0.5)))
    square = float(((mean_a - mean_b) ** 2).sum() + np.trace(A) + np.trace(B)) - 2 * joint
    return float(np.sqrt(max(0.0, square)))


def _cloud(points: Array, weights: Array | None) -> tuple[Array, Array]:
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
        raise ValueError(f"points (k2, k3) of shape {points.shape}: (N, 2) with N >= 3 is needed")
    if not np.isfinite(points).all():
        raise ValueError("a point (k2, k3) is NaN or infinite: leave out the tile")
    w = np.full(len(points), 1.0 / len(points)) if weights is None else weights / weights.sum()
    mean = w @ points
    spread: Array = (points - mean).T @ ((points - mean) * w[:, None])
    return mean, spread
