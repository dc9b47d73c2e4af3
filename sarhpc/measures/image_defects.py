"""Values of a single image that show whether it is spoiled.

Each is measured of one image alone, in milliseconds, and is nearly free of what the scene shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.measures.features import amplitude
from sarhpc.measures.levels import measure_levels
from sarhpc.measures.looks import enl_mode, local_enl_histogram
from sarhpc.measures.speckle_correlation import lag_products, speckle_autocorrelation
from sarhpc.measures.spectrum import RADII, SEGMENT_PX, grid_lines_db, measure_spectrum

LEAST_PX = SEGMENT_PX
"""Fewest rows and columns of an image: one segment of the spectrum."""
FINE = slice(3 * RADII // 4, RADII)
"""Annuli of the radial spectrum from 0.39 to 0.5 cycles per pixel."""
WHITE = np.zeros((2, 1))
"""Autocorrelation for which looks are counted; a blurred image must not have its own."""

SATURATED, FINE_POWER, CORRELATION, GRID = "saturated", "fine_power", "correlation", "grid"
LEVEL, LOOKS, COLOUR = "level", "looks", "colour"

UNITS: Mapping[str, str] = MappingProxyType(
    {
        SATURATED: "of the pixels",
        FINE_POWER: "dB",
        CORRELATION: "of 1",
        GRID: "dB",
        LEVEL: "dB",
        LOOKS: "looks",
        COLOUR: "of full scale",
    }
)
"""Value -> its unit."""


def measure_image(image: NDArray[Any], channels: NDArray[Any] | None = None) -> dict[str, float]:
    """Values of an image by name: those of `UNITS`, without `colour` where no channels are given.

    * `saturated`: share of the pixels at the maximum of the image. Speckle has one such pixel.
    * `fine_power`: 10 log10 of the mean power density of ln A from 0.39 to 0.5 cycles per pixel
      (E5). Blur takes it away; the scene hardly has any.
    * `correlation`: mean over both axes of the autocorrelation of speckle at a lag of 1 px (E4).
      White speckle has little.
    * `grid`: level of the lines at multiples of 1/8 cycles per pixel (E5).
    * `level`: mean level (E3), dB in the unit of the image.
    * `looks`: mode of the local ENL (E1), counted as for white speckle; infinite without speckle.
    * `colour`: see `colour_spread`.

    Args:
        image: (H, W) linear amplitude or its 8-bit view (`features.amplitude`), at least 64 x 64.
        channels: (H, W, 3) as decoded, 0 to 1, before their mean is taken.

    Raises:
        ValueError: too small, NaN, negative, constant, mostly 0, or with a gap of zeros.
    """
    A = amplitude(image)
    I = np.square(A, dtype=np.float64)  # noqa: E741 - intensity is I in every SAR text
    spectrum = measure_spectrum(A)
    top = A.max()
    values = {
        SATURATED: float((top == A).mean()),
        FINE_POWER: float(10.0 * np.log10(spectrum.radial[FINE].mean())),
        CORRELATION: float(speckle_autocorrelation(lag_products(I))[:, 0].mean()),
        GRID: grid_lines_db(spectrum.lines_db),
        LEVEL: measure_levels(A).mean_db,
        LOOKS: _looks(I),
    }
    if channels is not None:
        values[COLOUR] = colour_spread(channels)
    return values


def _looks(I: NDArray[np.float64]) -> float:  # noqa: E741
    histogram = local_enl_histogram(I)
    if int(np.argmax(histogram)) == histogram.size - 1:
        return float("inf")
    return enl_mode(histogram, WHITE)


def colour_spread(channels: NDArray[Any]) -> float:
    """Root mean square over the pixels of the standard deviation between the channels.

    A gray image has 0; its unit is the full scale of the picture.

    Args:
        channels: (H, W, 3) as decoded, 0 to 1.

    Raises:
        ValueError: another shape, NaN or infinite values.
    """
    if channels.ndim != 3 or channels.shape[2] < 2:
        raise ValueError(f"channels of shape {channels.shape}: (H, W, 3) is needed")
    C = np.asarray(channels, np.float64)
    if not np.isfinite(C).all():
        raise ValueError(f"channels of shape {C.shape} have NaN or infinite values")
    return float(np.sqrt(C.var(axis=2).mean()))
