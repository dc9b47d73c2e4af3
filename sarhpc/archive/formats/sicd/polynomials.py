"""Two-dimensional polynomials of a SICD, in metres from the scene centre: Doppler drift, noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial.polynomial import polygrid2d, polyint
from numpy.typing import NDArray

Coefficients = NDArray[np.float64]
Vector = NDArray[np.float64]

_LEAST_DRIFT = 0.01
"""Change of the centre of the spectrum over an image, cycles per pixel, that is taken for none."""


@dataclass(frozen=True)
class Deskew:
    """The phase that centres the azimuth spectrum everywhere.

    The centre of the support of the spectrum along columns is DeltaKCOAPoly(x, y), cycles per metre
    (SICD Volume 1, Grid.Col). Where it drifts over the image, no single band holds it.
    """

    centre: Coefficients
    sign: int
    """Sign of the exponent of the transform from image to spectrum."""

    @classmethod
    def needed(
        cls, centre: Coefficients | None, sign: int, x: Vector, y: Vector, spacing_m: float
    ) -> Deskew | None:
        """What deskews an image with corners at `x` and `y`; None where the centre stays."""
        if centre is None or not np.any(centre.ravel()[1:]):
            return None
        drift = np.ptp(polygrid2d(x, y, centre)) * spacing_m
        return cls(centre, sign) if drift > _LEAST_DRIFT else None

    def factor(self, x: Vector, y: Vector) -> NDArray[np.complex64]:
        """Unit factors (H, W) at distances (H,) along rows and (W,) along columns, m."""
        cycles = polygrid2d(x, y, polyint(self.centre, axis=1))
        cycles -= np.round(cycles)
        return np.exp(2j * np.pi * self.sign * cycles).astype(np.complex64)


def noise_floor_db(
    noise_db: Coefficients | None, sigma_zero: Coefficients | None, x: float, y: float
) -> float | None:
    """Noise-equivalent sigma0 at a point, dB; None where noise or calibration are unknown.

    `noise_db` is the absolute noise power of a pixel (Radiometric.NoiseLevel).
    """
    if noise_db is None or sigma_zero is None:
        return None
    at = np.array([x]), np.array([y])
    factor = float(polygrid2d(*at, sigma_zero)[0, 0])
    if not factor > 0:
        return None
    return round(float(polygrid2d(*at, noise_db)[0, 0]) + 10 * float(np.log10(factor)), 3)
