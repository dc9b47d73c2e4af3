"""Texture of backscatter, correlated in space: the factor of the K and G0 distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sarhpc.archive.procedural.backscatter import SCATTERING
from sarhpc.archive.procedural.config import LABELS
from sarhpc.archive.procedural.noise import Field, smooth_noise

CORRELATION_PX = 4.0
"""Width of the Gaussian kernel that correlates texture, pixels: narrower, and the impulse response
would average it away."""

CORRELATION_M = 0.7
"""The same width in radiometry 2, metres."""
LEAST_CORRELATION_PX = 2.0
"""Least width in radiometry 2, pixels."""

HETEROGENEOUS = {"urban": 2.0, "forest": 4.0}
"""Shape M of the inverse gamma texture of radiometry 2 by class name."""
OPEN_NU = 8.0
"""Largest nu of textured classes in radiometry 2: that of the lawn of GOTCHA, k2 = 1.78."""

_KNOTS = np.linspace(-5.5, 5.5, 1024)


def gamma_of_normal(normal: Field, nu: float) -> Field:
    """Gamma texture (H, W) of shape `nu` and unit mean from a unit Gaussian field.

    Each value takes the gamma quantile of its normal probability, so the marginal law is exactly
    Gamma for any `nu`, and the field keeps the Gaussian's correlation length.
    """
    quantiles = special.gammaincinv(nu, special.ndtr(_KNOTS)) / nu
    return np.interp(normal, _KNOTS, quantiles).astype(np.float32)


def inverse_gamma_of_normal(normal: Field, shape: float) -> Field:
    """Inverse gamma texture (H, W) of `shape` M > 1 and unit mean from a unit Gaussian field.

    With speckle it is the G0 distribution, the law of extremely heterogeneous clutter (Frery,
    Mueller, Yanasse and Sant'Anna, IEEE TGRS 35(3), 1997).
    """
    quantiles = (shape - 1) / special.gammaincinv(shape, special.ndtr(-_KNOTS))
    return np.interp(normal, _KNOTS, quantiles).astype(np.float32)


def class_texture(
    rng: np.random.Generator, label: NDArray[np.uint8], pixel_m: float, radiometry: int
) -> Field:
    """Texture factor (H, W) of unit mean: every pixel by the law of its class."""
    scale = (
        CORRELATION_PX if radiometry == 1 else max(CORRELATION_M / pixel_m, LEAST_CORRELATION_PX)
    )
    normal = smooth_noise(rng, label.shape, scale)
    texture = np.ones(label.shape, dtype=np.float32)
    for code, name in enumerate(LABELS):
        here = label == code
        if here.any() and (law := _law(name, radiometry)) is not None:
            texture[here] = law(normal[here])
    return texture


def _law(name: str, radiometry: int) -> Callable[[Field], Field] | None:
    """Texture of a class from a unit Gaussian field; None where it has none."""
    nu = SCATTERING[name].nu
    if radiometry == 2 and name in HETEROGENEOUS:
        return partial(inverse_gamma_of_normal, shape=HETEROGENEOUS[name])
    if radiometry == 2:
        nu = min(nu, OPEN_NU) if math.isfinite(nu) else nu
    return partial(gamma_of_normal, nu=nu) if math.isfinite(nu) else None
