"""Densities of ln I under the laws of E2, for figures of levels with their fits.

With G_L the logarithm of a gamma variable of shape L, ln I less its mean k1 is distributed as

    gamma G_L, nakagami G_m, k G_L + G_nu, g0 G_L - G_M, weibull G_1 / b, each less its mean

(Nicolas, Traitement du Signal 19(3), 2002; the density of K: Jakeman and Pusey, IEEE TAP 24(6),
1976).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import digamma, gammaln, kve

from sarhpc.measures.amplitude_laws import LAWS
from sarhpc.measures.intensity import Array

LARGE = 150.0
"""Shape from which a factor of K is so narrow that the product is gamma, and Bessel functions of
its order overflow."""


def log_intensity_density(law: str, shape: float, looks: float, x: Array) -> Array:
    """Density of ln I at `x`, nepers of power from the mean of ln I.

    Args:
        law: one of `LAWS`.
        shape: nu, M, b or m; not used for gamma.
        looks: L of gamma, K and G0.
        x: any shape.

    Raises:
        ValueError: an unknown law, or a shape or `looks` not above 0.
    """
    if law not in LAWS or not (shape > 0 and looks > 0):
        raise ValueError(f"law {law!r}, shape {shape:g}, looks {looks:g}: give values above 0")
    if law in ("k", "g0") and math.isinf(shape):
        law = "gamma"
    return _DENSITIES[law](x, shape, looks)


def _gamma(x: Array, _: float, L: float) -> Array:
    y = x + float(digamma(L))
    return np.asarray(np.exp(L * y - np.exp(y) - gammaln(L)))


def _k(x: Array, nu: float, L: float) -> Array:
    if max(nu, L) > LARGE:
        return _gamma(x, nu, 1.0 / (1.0 / L + 1.0 / nu))
    y = x + float(digamma(L) + digamma(nu))
    # Beyond 1e8 the density is 0, and the function not a number.
    order, root = abs(nu - L), np.minimum(2.0 * np.exp(y / 2.0), 1e8)
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        bessel = np.log(kve(order, root)) - root
        # Where the function overflows its first term is all of it.
        first = gammaln(max(order, 1e-9)) - math.log(2.0) - order * (y / 2.0)
        bessel = np.where(np.isposinf(bessel), first, bessel)
        return np.asarray(2.0 * np.exp((L + nu) / 2.0 * y + bessel - gammaln(L) - gammaln(nu)))


def _g0(x: Array, M: float, L: float) -> Array:
    y = x + float(digamma(L) - digamma(M))
    beta = gammaln(L) + gammaln(M) - gammaln(L + M)
    return np.asarray(np.exp(L * y - (L + M) * np.logaddexp(0.0, y) - beta))


def _weibull(x: Array, b: float, _: float) -> Array:
    y = b * x + float(digamma(1.0))
    return np.asarray(b * np.exp(y - np.exp(y)))


_Density = Callable[[Array, float, float], Array]
_DENSITIES: dict[str, _Density] = {
    "gamma": _gamma,
    "k": _k,
    "g0": _g0,
    "weibull": _weibull,
    "nakagami": lambda x, m, _: _gamma(x, m, m),
}
