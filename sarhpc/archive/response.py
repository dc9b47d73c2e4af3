"""The impulse response of a SAR image along one axis: its width, band and weighting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

_POINTS = 4096
_NBAR = 4


@dataclass(frozen=True)
class AxisResponse:
    """Spectral support and weighting of an image along one stored axis."""

    band: float
    """Width of the support, cycles per pixel."""
    window: str
    """Name of the weighting, upper case; UNIFORM where there is none."""
    parameter: float | None = None
    """Of TAYLOR the side lobes in dB, of HAMMING the coefficient, of KAISER beta."""
    weights: tuple[float, ...] = ()
    """The weighting itself over the band, where the file lists it."""
    irw_m: float | None = None
    """Width at -3 dB as the file states it, metres on the ground."""

    def weighting(self, frequency: Vector) -> Vector:
        """Weight at frequencies (n,) relative to the centre of the band, cycles per pixel."""
        place = frequency / self.band
        inside = np.abs(place) <= 0.5 + 1e-9
        if self.weights:
            nodes = np.linspace(-0.5, 0.5, len(self.weights))
            return np.where(inside, np.interp(place, nodes, self.weights), 0.0)
        return np.where(inside, _window(self.window, self.parameter, place), 0.0)

    def name(self) -> str:
        """The weighting in words."""
        return self.window if self.parameter is None else f"{self.window} {self.parameter:g}"


def _window(name: str, parameter: float | None, place: Vector) -> Vector:
    """Weight at positions -0.5 to 0.5 of the band; 1 for a window that is not known."""
    if name == "HAMMING":
        alpha = 0.54 if parameter is None else parameter
        return np.asarray(alpha + (1 - alpha) * np.cos(2 * np.pi * place))
    if name == "HANNING":
        return np.asarray(0.5 + 0.5 * np.cos(2 * np.pi * place))
    if name == "KAISER":
        beta = 2.5 if parameter is None else parameter
        inner = np.sqrt(np.maximum(1 - (2 * place) ** 2, 0))
        return np.asarray(np.i0(beta * inner) / np.i0(beta))
    if name == "TAYLOR":
        return _taylor(30.0 if parameter is None else abs(parameter), place)
    return np.ones_like(place)


def _taylor(sidelobe_db: float, place: Vector) -> Vector:
    """The Taylor window of four equal side lobes (Carrara et al., Spotlight SAR, appendix D.2)."""
    a = np.arccosh(10 ** (sidelobe_db / 20)) / np.pi
    scale = _NBAR**2 / (a**2 + (_NBAR - 0.5) ** 2)
    total = np.ones_like(place)
    for m in range(1, _NBAR):
        others = [n for n in range(1, _NBAR) if n != m]
        top = np.prod([1 - m**2 / scale / (a**2 + (n - 0.5) ** 2) for n in range(1, _NBAR)])
        bottom = np.prod([1 - m**2 / n**2 for n in others])
        total = total + (-1) ** (m + 1) * top / bottom * np.cos(2 * np.pi * m * place)
    return np.asarray(total / total.max())


def width_and_sidelobe(weight: Vector, step: float) -> tuple[float, float]:
    """Width at -3 dB, in pixels, and highest side lobe, dB, of the response of a weighting.

    Args:
        weight: weights (n,) at frequencies `step` apart.
        step: cycles per pixel between them.
    """
    size = _POINTS * 4
    response = np.abs(np.fft.fftshift(np.fft.fft(weight, size)))
    level = 20 * np.log10(np.maximum(response / response.max(), 1e-12))
    peak = int(np.argmax(level))
    pixel = 1 / (size * step)
    right = peak + int(np.argmax(level[peak:] < -3))
    inner = (-3 - level[right - 1]) / (level[right] - level[right - 1])
    width = 2 * (right - 1 + inner - peak) * pixel
    falling = np.flatnonzero(np.diff(level[peak:]) > 0)
    beyond = peak + int(falling[0]) if falling.size else size - 1
    return float(width), float(level[beyond:].max())


def sampled(response: AxisResponse, kept: Any = None) -> tuple[float, float]:
    """Width in pixels and highest side lobe in dB of an axis; `kept` filters its frequencies."""
    frequency = np.linspace(-response.band / 2, response.band / 2, _POINTS // 4 + 1)
    weight = response.weighting(frequency)
    if kept is not None:
        weight = weight * kept(frequency)
    return width_and_sidelobe(weight, frequency[1] - frequency[0])
