"""The sensor model: a reflectivity as radar images of given resolution, looks and noise.

Scatterers are a circular complex Gaussian field of the power of the reflectivity: fully developed
speckle. The field passes the response of the sensor by complex FFT, a Taylor-weighted band as wide
as the resolution demands; thermal noise, white before that response, is added to it; the intensity
of independent looks is averaged. Amplitude is never interpolated.

A draw has the same scatterers at every resolution, number of looks and noise level: the first of
four looks is the one look of its image of one look. Other draws, seeds and prompts have others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from sarhpc.generation.sweeps.settings import Sensor
from sarhpc.imaging.focusing import Complex, circular_gaussian, impulse_response, resolution_px
from sarhpc.imaging.streams import stream

Array = NDArray[np.float64]

MARGIN_PX = 48
"""Mirrored ground beyond the borders, lest the response wraps around them."""


@dataclass(frozen=True)
class Scene:
    """What is imaged, and on which pixels."""

    reflectivity: NDArray[Any]
    """Mean backscatter (H, W), linear."""
    pixel_m: float
    """Spacing of rows and columns."""
    seed: int
    """Of the scatterers and the noise."""
    owner: str
    """Likewise: images of another owner have others."""


def sensor_images(
    scene: Scene, sensors: Sequence[Sensor], sidelobe_db: float, noise_unit: float = 1.0
) -> Iterator[tuple[Sensor, Array]]:
    """Intensity (H, W) of each setting, in the unit of the reflectivity, in groups of one draw.

    Args:
        scene: the ground.
        sensors: settings of which no two are equal.
        sidelobe_db: of the Taylor weighting, below the main lobe.
        noise_unit: amplitude of noise of 0 dB.
    """
    ordered = sorted(sensors, key=lambda s: (s.resolution_m, s.draw, s.looks))
    for (resolution, draw), group in itertools.groupby(
        ordered, key=lambda s: (s.resolution_m, s.draw)
    ):
        wanted = list(group)
        levels = {s.noise_db for s in wanted}
        totals = {level: np.zeros(scene.reflectivity.shape) for level in levels}
        for look in range(max(s.looks for s in wanted)):
            scattered, noise = look_fields(scene, resolution, draw, look, sidelobe_db)
            for level, total in totals.items():
                added = 0.0 if level is None else noise_unit * 10 ** (level / 20)
                total += np.abs(scattered + np.float32(added) * noise).astype(np.float64) ** 2
            for sensor in wanted:
                if sensor.looks == look + 1:
                    yield sensor, totals[sensor.noise_db] / sensor.looks


def look_fields(
    scene: Scene, resolution_m: float, draw: int, look: int, sidelobe_db: float
) -> tuple[Complex, Complex]:
    """The complex image (H, W) of one look without noise, and noise of unit power in it."""
    ground = np.pad(scene.reflectivity, MARGIN_PX, mode="symmetric")
    full = tuple(fft.next_fast_len(side) for side in ground.shape)
    extra = [(0, want - side) for want, side in zip(full, ground.shape, strict=True)]
    amplitude = np.sqrt(np.pad(ground, extra, mode="symmetric")).astype(np.float32)
    band = resolution_px(1.0, sidelobe_db) * scene.pixel_m / resolution_m
    inside = tuple(slice(MARGIN_PX, MARGIN_PX + side) for side in scene.reflectivity.shape)

    def focused(purpose: str, power: Any) -> Complex:
        rng = stream(scene.seed, scene.owner, f"{purpose}/{draw}/{look}")
        field = circular_gaussian(rng, (full[0], full[1])) * power
        return impulse_response(field, band, sidelobe_db)[inside]

    return focused("speckle", amplitude), focused("noise", np.float32(1))
