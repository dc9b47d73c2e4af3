"""From amplitude to codes and back: the 8-bit picture and the 16-bit master.

The picture is A / top clipped to [0, 1], with `top` fixed per scene (never per tile, which would
make the brightness of water depend on its neighbours). The master is linear in amplitude with a
scale of its own per tile, so that nothing is clipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MASTER_MAX = 65535


@dataclass(frozen=True)
class Normalisation:
    """Scene constants of the 8-bit picture; amplitudes in the unit of the scene."""

    mode: str
    """`mu+3sigma` or `percentile`."""
    mu: float
    """Mean amplitude of valid pixels at tile spacing."""
    sigma: float
    """Standard deviation of the same."""
    top: float
    """Amplitude of code 255."""

    def to_json(self) -> dict[str, Any]:
        """The constants as they stand in `meta.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Normalisation:
        """The constants of a sample's `normalisation` entry."""
        return cls(**value)


def encode_picture(amplitude: NDArray[np.float32], top: float) -> NDArray[np.uint8]:
    """8-bit codes (H, W) = round(255 * min(A / top, 1))."""
    scaled = amplitude * np.float32(255 / top)
    np.minimum(scaled, np.float32(255), out=scaled)
    np.rint(scaled, out=scaled)
    return scaled.astype(np.uint8)


def decode_picture(codes: NDArray[np.uint8], top: float) -> NDArray[np.float32]:
    """Amplitude (H, W) of 8-bit codes, within top / 510; code 255 stands for `top` and above."""
    return codes * np.float32(top / 255)


def encode_master(amplitude: NDArray[np.float32]) -> tuple[NDArray[np.uint16], float]:
    """16-bit codes (H, W) and the scale for which A = code * scale, within scale / 2.

    The scale is the tile's own maximum over 65535, so that no scatterer is clipped.
    """
    peak = float(amplitude.max(initial=0.0))
    scale = peak / MASTER_MAX if peak > 0 else 1.0
    codes = amplitude * np.float32(1 / scale)
    np.minimum(codes, np.float32(MASTER_MAX), out=codes)
    np.rint(codes, out=codes)
    return codes.astype(np.uint16), scale


def decode_master(codes: NDArray[np.uint16], scale: float) -> NDArray[np.float32]:
    """Amplitude (H, W) of a master; for a calibrated scene its square is sigma0."""
    return codes * np.float32(scale)
