"""Configuration of a sensor sweep: what prompts state, and what a sensor model makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional


@dataclass
class SensorConfig:
    """Sensors that image the reflectivity of each layout anew; every combination is one setting."""

    resolution_m: list[float] = field(default_factory=list)
    """Resolutions, both axes, m: the width of the impulse response at half power (IRW)."""
    looks: list[int] = field(default_factory=lambda: [1])
    """Numbers of independent looks whose intensity is averaged, each of the full resolution."""
    noise_db: list[Optional[float]] = field(default_factory=lambda: [None])  # noqa: UP045 - OmegaConf
    """Noise-equivalent sigma0, dB, on top of the noise of the tiles that the model learned from;
    null adds none. Of a model whose contract is not calibrated relative to code 255."""
    draws: int = 1
    """Independent draws of speckle and noise of each of these combinations."""
    sidelobe_db: float = 30.0
    """Peak sidelobe level of the Taylor weighting below the main lobe, dB."""
    model_looks: float = 1.0
    """Looks of the speckle in images of the model, by which it is filtered."""
    model_resolution_m: float | None = None
    """IRW of the tiles that the model learned from, m: finer resolutions are refused; null refuses
    those that the pixel spacing cannot hold."""
    window_px: int = 9
    """Window of the speckle filter that estimates the reflectivity, px, odd."""


@dataclass
class SweepConfig:
    """Settings of which each layout, a prompt with its seed, has one image each."""

    incidence_deg: list[float] = field(default_factory=list)
    """Angles of incidence that the prompt asks for by `{incidence}`, degrees."""
    spacing_m: list[float] = field(default_factory=list)
    """Pixel spacings that the prompt asks for by `{gsd}`, m; not with `sensor`."""
    band: list[str] = field(default_factory=list)
    """Radar bands that the prompt asks for by `{band}`."""
    sensor: SensorConfig | None = None
    """Sensor model: resolutions, looks, noise levels and speckle draws; null keeps the images as
    the model draws them."""
