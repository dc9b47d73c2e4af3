"""Texture of backscatter: the gamma factor of the K distribution, correlated in space."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sarhpc.archive.procedural.backscatter import table
from sarhpc.archive.procedural.noise import Field, smooth_noise

CORRELATION_PX = 4.0
"""Width of the Gaussian kernel that correlates texture, pixels: narrower, and the impulse response
would average it away."""

_KNOTS = np.linspace(-5.5, 5.5, 1024)


def gamma_of_normal(normal: Field, nu: float) -> Field:
    """Gamma texture (H, W) of shape `nu` and unit mean from a unit Gaussian field.

    Each value takes the gamma quantile of its normal probability, so the marginal law is exactly
    Gamma for any `nu`, and the field keeps the Gaussian's correlation length.
    """
    quantiles = special.gammaincinv(nu, special.ndtr(_KNOTS)) / nu
    return np.interp(normal, _KNOTS, quantiles).astype(np.float32)


def class_texture(rng: np.random.Generator, label: NDArray[np.uint8]) -> Field:
    """Texture factor (H, W) of unit mean: every pixel by the `nu` of its class."""
    normal = smooth_noise(rng, label.shape, CORRELATION_PX)
    texture = np.ones(label.shape, dtype=np.float32)
    for code, nu in enumerate(table("nu").tolist()):
        here = label == code
        if math.isfinite(nu) and here.any():
            texture[here] = gamma_of_normal(normal[here], nu)
    return texture
