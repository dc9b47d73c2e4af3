"""E2: laws of clutter fitted by log-cumulants, and which of them the sample follows.

With psi_n the polygamma functions and L the number of looks, k2 and k3 of ln I are

    gamma      psi_1(L)               psi_2(L)               speckle without texture
    k          psi_1(L) + psi_1(nu)   psi_2(L) + psi_2(nu)   gamma texture, shape nu
    g0         psi_1(L) + psi_1(M)    psi_2(L) - psi_2(M)    inverse gamma texture, shape M (Fisher)
    weibull    psi_1(1) / b^2         psi_2(1) / b^3         shape b of intensity, 2 b of amplitude
    nakagami   psi_1(m)               psi_2(m)               shape m of amplitude, L not used

(Nicolas, Traitement du Signal 19(3), 2002; Tison, Nicolas, Tupin and Maitre, IEEE TGRS 42(10),
2004; Anfinsen and Eltoft, IEEE TGRS 49(6), 2011.) In the diagram of (k2, k3) gamma is a point, the
others are curves: K bends to negative k3, G0 to positive. The shape solves k2; k3 is then left to
judge by.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy.special import chdtrc, polygamma

from sarhpc.measures.log_cumulants import LogCumulants, inverse_trigamma

LAWS = ("gamma", "k", "g0", "weibull", "nakagami")
NORMAL_95 = 1.959964


@dataclass(frozen=True)
class LawFit:
    """A law fitted to log-cumulants; infinite shape is no texture."""

    law: str
    shape: float
    """nu, M, b or m; L for gamma, which has none to fit."""
    interval: tuple[float, float]
    """95 % interval of the shape, from the sampling variance of k2."""
    k3: float
    """k3 of the fitted law."""
    chi2: float
    """Squared distance from the sample in the diagram, in units of its sampling covariance."""
    p_value: float
    """Probability of a distance as large, were this the law; below 0.05 it is refused."""
    score: float
    """chi2 + 2 x fitted shapes: the lowest is the law of the sample."""


def fit_laws(sample: LogCumulants, looks: float = 1.0) -> tuple[LawFit, ...]:
    """The five laws fitted to a sample, best first.

    Args:
        sample: log-cumulants with their covariance, of independent samples.
        looks: number of looks L of gamma, K and G0, known from the sensor or from E1.

    Raises:
        ValueError: `looks` not above 0.
    """
    if not (math.isfinite(looks) and looks > 0):
        raise ValueError(f"looks is {looks:g}: give the number of looks, above 0")
    fits = (_fit(law, sample, looks) for law in LAWS)
    return tuple(sorted(fits, key=lambda fit: fit.score))


def law_cumulants(law: str, shape: float, looks: float = 1.0) -> tuple[float, float]:
    """k2 and k3 of ln I under a law: a point of the log-cumulant diagram.

    Raises:
        ValueError: an unknown law, or a shape or `looks` not above 0.
    """
    if law not in LAWS or not (shape > 0 and looks > 0):
        raise ValueError(
            f"law {law!r}, shape {shape:g}, looks {looks:g}: one of {', '.join(LAWS)} and values "
            "above 0 are needed"
        )
    return _K2[law](shape, looks), _K3[law](shape, looks)


def _psi(order: int, x: float) -> float:
    return 0.0 if math.isinf(x) else float(polygamma(order, x))


_Curve = Callable[[float, float], float]
_K2: dict[str, _Curve] = {
    "gamma": lambda _, L: _psi(1, L),
    "k": lambda nu, L: _psi(1, L) + _psi(1, nu),
    "g0": lambda M, L: _psi(1, L) + _psi(1, M),
    "weibull": lambda b, _: _psi(1, 1) / b**2,
    "nakagami": lambda m, _: _psi(1, m),
}
_K3: dict[str, _Curve] = {
    "gamma": lambda _, L: _psi(2, L),
    "k": lambda nu, L: _psi(2, L) + _psi(2, nu),
    "g0": lambda M, L: _psi(2, L) - _psi(2, M),
    "weibull": lambda b, _: _psi(2, 1) / b**3,
    "nakagami": lambda m, _: _psi(2, m),
}


def _shape(law: str, k2: float, looks: float) -> float:
    """The shape with this k2; infinity where k2 is that of speckle alone, or less."""
    if law == "weibull":
        return math.sqrt(_psi(1, 1) / k2) if k2 > 0 else math.inf
    if law == "nakagami":
        return inverse_trigamma(k2)
    return inverse_trigamma(k2 - _psi(1, looks))


def _slope(law: str, shape: float, sample: LogCumulants, k3: float) -> float:
    """dk3/dk2 along the curve of a law."""
    if law == "weibull":
        return 1.5 * k3 / sample.k2
    ratio = _psi(3, shape) / _psi(2, shape)
    return -ratio if law == "g0" else ratio


def _fit(law: str, sample: LogCumulants, looks: float) -> LawFit:
    v22, v23, v33 = sample.covariance
    shape = looks if law == "gamma" else _shape(law, sample.k2, looks)
    k3 = _K3[law](shape, looks)
    fitted = law != "gamma"
    if not fitted or math.isinf(shape):
        d2, d3 = sample.k2 - _psi(1, looks), sample.k3 - k3
        chi2 = (v33 * d2**2 - 2 * v23 * d2 * d3 + v22 * d3**2) / (v22 * v33 - v23**2)
        p_value = float(chdtrc(2, chi2))
    else:
        slope = _slope(law, shape, sample, k3)
        chi2 = (sample.k3 - k3) ** 2 / (v33 - 2 * slope * v23 + slope**2 * v22)
        p_value = float(chdtrc(1, chi2))
    interval = _interval(law, sample, looks) if fitted else (looks, looks)
    return LawFit(law, shape, interval, k3, chi2, p_value, chi2 + 2 * fitted)


def _interval(law: str, sample: LogCumulants, looks: float) -> tuple[float, float]:
    margin = NORMAL_95 * math.sqrt(sample.covariance[0])
    low, high = (_shape(law, sample.k2 + sign * margin, looks) for sign in (1, -1))
    return low, high
