"""Amplitude to codes and back: the 8-bit picture and the 16-bit master.

The picture follows one of the laws below, with constants fixed per scene or for all scenes (never
per tile, which would make the brightness of water depend on its surroundings). The master of a tile
clips nothing: it is linear in amplitude with a scale per tile, or logarithmic, with the same
relative precision for dark and bright pixels. The master of a generated image holds the levels that
the model's decoder gave, between the ends of the law of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError

MASTER_MAX = 65535

LINEAR_MODES = ("mu+3sigma", "percentile")
"""Picture proportional to amplitude, up to a `top` measured on the scene."""

LOG_MODES = ("db", "log")
"""Picture proportional to the logarithm of amplitude, between `low` and `top`."""

MODES = (*LINEAR_MODES, *LOG_MODES, "log1p")
"""All laws; `log1p` is proportional to ln(1 + gain * A^2), between two fixed values of it."""

MASTERS = ("linear", "log")

LEVEL_MASTER = "level"
"""Law of the master of a generated image: code / 65535 is the level of the picture's law."""

LEVEL_FLOOR = 0.5 / 255
"""Least level in such a master where level 0 is zero amplitude: half a step of the 8-bit pictures
that the model learned from, which tell nothing of what is darker."""

MASTER_STEP_DB = 0.002
"""Step of the logarithmic master: 131 dB of range, each value within 0.001 dB."""

_TINY = np.float32(1e-30)


@dataclass(frozen=True)
class Normalisation:
    """Constants of the 8-bit picture; amplitudes in the unit of the scene."""

    mode: str
    """One of MODES."""
    mu: float | None
    """Mean amplitude of valid pixels at tile spacing; None where it is not of one scene."""
    sigma: float | None
    """Standard deviation of the same."""
    top: float
    """Amplitude of code 255."""
    low: float | None = None
    """Amplitude of code 0; None is zero, as all linear modes have it."""
    gain: float | None = None
    """Of `log1p`: factor on A^2 within the logarithm."""

    def to_json(self) -> dict[str, Any]:
        """The constants as written to `meta.json`."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Normalisation:
        """The constants of a sample's `normalisation` entry.

        Raises:
            DataError: it is no law of pixels, or lacks a constant.
        """
        stated = {"mu": None, "sigma": None, **value}
        numbers = [stated[name] for name in stated.keys() - {"mode"} if stated[name] is not None]
        known = {field.name for field in fields(cls)}
        if (
            stated.get("mode") not in MODES
            or stated.get("top") is None
            or not stated.keys() <= known
            or not all(isinstance(number, int | float) for number in numbers)
        ):
            raise DataError(f"the entry `normalisation` is no law of pixels: {dict(value)}")
        return cls(**stated)

    def encode(self, amplitude: NDArray[np.float32]) -> NDArray[np.uint8]:
        """8-bit codes (H, W) of amplitude (H, W); clipped below `low` and above `top`."""
        if self.mode in LINEAR_MODES:
            return encode_picture(amplitude, self.top)
        return np.rint(255 * self.levels(amplitude)).astype(np.uint8)

    def levels(self, amplitude: NDArray[np.float32]) -> NDArray[np.float32]:
        """The law itself (H, W): 0 at `low` and 1 at `top`, clipped, before it is rounded."""
        low, high = (float(self._law(np.float32(end))) for end in (self.low or 0.0, self.top))
        level = (self._law(amplitude) - np.float32(low)) / np.float32(high - low)
        return np.asarray(np.clip(level, 0, 1), np.float32)

    def decode(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Amplitude (H, W) of 8-bit codes; 0 and 255 also stand for clipped values."""
        return self.amplitudes(codes * np.float32(1 / 255))

    def amplitudes(self, level: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Amplitude (H, W) of levels between 0 and 1: the inverse of `levels`."""
        low, high = (float(self._law(np.float32(end))) for end in (self.low or 0.0, self.top))
        value = np.float64(low) + np.asarray(level, np.float64) * (high - low)
        if self.mode in LOG_MODES:
            value = np.exp(value)
        elif self.mode == "log1p":
            value = np.sqrt(np.maximum(np.expm1(value), 0) / (self.gain or 1.0))
        return np.asarray(value, np.float32)

    def _law(self, amplitude: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
        if self.mode in LOG_MODES:
            # Radar shadow is zero, whose logarithm must stay finite.
            return np.asarray(np.log(np.maximum(amplitude, _TINY)), np.float32)
        if self.mode == "log1p":
            squared = np.square(np.asarray(amplitude, np.float32))
            return np.asarray(np.log1p(np.float32(self.gain or 1.0) * squared), np.float32)
        return np.asarray(amplitude, np.float32)


def amplitude_of_db(level_db: float) -> float:
    """Amplitude whose square is `level_db` decibels."""
    return float(10 ** (level_db / 20))


def amplitude_of_log1p(value: float, gain: float) -> float:
    """Amplitude A for which ln(1 + gain * A^2) is `value`."""
    return math.sqrt(math.expm1(value) / gain)


def encode_picture(amplitude: NDArray[np.float32], top: float) -> NDArray[np.uint8]:
    """8-bit codes (H, W) = round(255 * min(A / top, 1))."""
    scaled = amplitude * np.float32(255 / top)
    np.minimum(scaled, np.float32(255), out=scaled)
    np.rint(scaled, out=scaled)
    return scaled.astype(np.uint8)


def encode_master(amplitude: NDArray[np.float32]) -> tuple[NDArray[np.uint16], float]:
    """16-bit codes (H, W) and the scale for which A = code * scale, within scale / 2.

    The scale is the tile's own maximum over 65535, so that no scatterer is clipped. A pixel is
    within 0.01 dB as long as it lies no more than 43.6 dB below the brightest of its tile.
    """
    peak = float(amplitude.max(initial=0.0))
    scale = peak / MASTER_MAX if peak > 0 else 1.0
    codes = amplitude * np.float32(1 / scale)
    np.minimum(codes, np.float32(MASTER_MAX), out=codes)
    np.rint(codes, out=codes)
    return codes.astype(np.uint16), scale


def decode_master(codes: NDArray[np.uint16], scale: float) -> NDArray[np.float32]:
    """Amplitude (H, W) of a linear master; for a calibrated scene its square is sigma0."""
    return codes * np.float32(scale)


def encode_log_master(amplitude: NDArray[np.float32]) -> tuple[NDArray[np.uint16], float]:
    """16-bit codes (H, W) and the amplitude of code 1; each step is MASTER_STEP_DB, 0 is zero.

    The brightest pixel of the tile has code 65535. What lies more than 131 dB below it has code 1.
    """
    peak = float(amplitude.max(initial=0.0))
    if peak <= 0:
        return np.zeros(amplitude.shape, np.uint16), 1.0
    lowest = peak * amplitude_of_db(-(MASTER_MAX - 1) * MASTER_STEP_DB)
    # In float32 codes near 65535 would be off by 0.004.
    level = 20 * np.log10(np.maximum(amplitude, _TINY).astype(np.float64) / lowest)
    codes = np.clip(np.rint(level / MASTER_STEP_DB) + 1, 1, MASTER_MAX)
    codes[amplitude <= 0] = 0
    return codes.astype(np.uint16), lowest


def decode_log_master(codes: NDArray[np.uint16], lowest: float) -> NDArray[np.float32]:
    """Amplitude (H, W) of a logarithmic master, within 0.001 dB."""
    level = (codes.astype(np.float64) - 1) * (MASTER_STEP_DB / 20)
    return np.where(codes > 0, lowest * 10**level, 0.0).astype(np.float32)


def level_floor(mode: str) -> float | None:
    """Least level in the masters of images of a law; None where level 0 has an amplitude."""
    return None if mode in LOG_MODES else LEVEL_FLOOR


def encode_levels(levels: NDArray[np.float32], floor: float = 0.0) -> NDArray[np.uint16]:
    """16-bit codes (H, W) of levels between `floor` and 1, each within half a step of 1 / 65535.

    Lower levels have the code of the floor.
    """
    scaled = np.asarray(levels, np.float64) * MASTER_MAX
    return np.rint(np.clip(scaled, floor * MASTER_MAX, MASTER_MAX)).astype(np.uint16)


def decode_levels(codes: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Levels (H, W) between 0 and 1 of a master of levels."""
    return codes / MASTER_MAX


def law_of(meta: Mapping[str, Any]) -> Normalisation:
    """The law of the pixels of a sample, from its `meta.json`.

    Raises:
        DataError: names the sample whose entry is no law.
    """
    try:
        return Normalisation.from_json(meta["normalisation"])
    except (DataError, TypeError) as error:
        raise DataError(f"sample {meta.get('key')}: {error}") from error


def master_amplitude(codes: NDArray[np.uint16], meta: Mapping[str, Any]) -> NDArray[np.float32]:
    """Amplitude (H, W) of `sar16.npy`, by the law named in `meta.json`.

    Raises:
        DataError: the law is unknown, or the constants of its normalisation are.
    """
    law = meta.get("master_law", "linear")
    if law == LEVEL_MASTER:
        if not isinstance(meta.get("normalisation"), Mapping):
            raise DataError(
                f"sample {meta.get('key')}: its master holds levels whose amplitude is unknown, as "
                "the model learned from tiles of different normalisations"
            )
        return law_of(meta).amplitudes(decode_levels(codes))
    scale = meta.get("master_scale")
    if not isinstance(scale, int | float):
        raise DataError(
            f"sample {meta.get('key')}: its metadata do not say what amplitude a code of sar16.npy "
            "is"
        )
    if law == "linear":
        return decode_master(codes, scale)
    if law == "log" and meta.get("master_step_db") == MASTER_STEP_DB:
        return decode_log_master(codes, scale)
    raise DataError(
        f"sample {meta.get('key')}: unknown master_law {law!r} of step "
        f"{meta.get('master_step_db')}; read it with the version that wrote it"
    )
