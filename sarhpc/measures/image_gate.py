"""Gate of single images: each is accepted, or quarantined with the reasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.measures.features import amplitude
from sarhpc.measures.gate_limits import GateLimits
from sarhpc.measures.image_defects import (
    COLOUR,
    CORRELATION,
    FINE_POWER,
    GRID,
    LEVEL,
    LOOKS,
    SATURATED,
    UNITS,
    measure_image,
)
from sarhpc.measures.near_duplicates import DuplicateIndex, ImageCode

NOT_FINITE, NEGATIVE, BLACK, CONSTANT = "not finite", "negative", "black", "constant"
NOT_MEASURABLE = "not measurable"
TOO_LITTLE = {FINE_POWER: "blurred", CORRELATION: "white speckle", LEVEL: "too dark"}
TOO_MUCH = {
    SATURATED: "saturated",
    GRID: "grid lines",
    LEVEL: "too bright",
    LOOKS: "speckle missing",
    COLOUR: "colour leakage",
}
DUPLICATE, NEAR_DUPLICATE = "duplicate", "near duplicate"


@dataclass(frozen=True)
class Reason:
    """One thing that is wrong with an image."""

    name: str
    text: str
    """With the value and its limit, where it has one."""


@dataclass(frozen=True)
class GateVerdict:
    """Whether an image enters the corpus."""

    reasons: tuple[Reason, ...]
    """Empty if it is accepted."""
    values: dict[str, float]
    """By the names of `image_defects.UNITS`; empty where nothing could be measured."""
    untested: tuple[str, ...] = ()
    """Values that were not judged: colour, where the limits or the image come without channels."""

    @property
    def accepted(self) -> bool:
        """Whether there is no reason against the image."""
        return not self.reasons


class ImageGate:
    """Gate of one corpus: it remembers what it accepted, in 40 bytes an image.

    Args:
        limits: from `calibrate`.
    """

    def __init__(self, limits: GateLimits) -> None:
        self.limits = limits
        self._index = DuplicateIndex(limits.corpus_size)

    def judge(self, image: NDArray[Any], channels: NDArray[Any] | None = None) -> GateVerdict:
        """Verdict on an image (H, W); if accepted, it counts as one of the corpus from now on.

        Args:
            image: linear amplitude or 8-bit codes, as the tiles that the limits are from.
            channels: (H, W, 3) as decoded, 0 to 1, before their mean is taken.

        Raises:
            ValueError: not an image, or smaller than the tiles that the limits are from; the corpus
                is full.
        """
        verdict = self.judge_alone(image, channels)
        if not verdict.values:
            return verdict
        code = ImageCode.of(image)
        reason = self.duplicate(code)
        if reason is not None:
            return replace(verdict, reasons=(*verdict.reasons, reason))
        if verdict.accepted:
            self._index.add_code(code)
        return verdict

    def admit(self, code: ImageCode) -> Reason | None:
        """Why an image repeats an accepted one; if it does not, it counts as accepted from now on.

        Raises:
            ValueError: the corpus is full.
        """
        reason = self.duplicate(code)
        if reason is None:
            self._index.add_code(code)
        return reason

    def judge_alone(self, image: NDArray[Any], channels: NDArray[Any] | None = None) -> GateVerdict:
        """As `judge`, whatever other images there are; threads may call it at the same time."""
        if image.ndim != 2 or min(image.shape) < self.limits.least_px:
            raise ValueError(
                f"image of shape {image.shape}: (H, W) of at least {self.limits.least_px} px is "
                "needed, as the limits are from such tiles"
            )
        broken = _broken(image, channels)
        if broken is not None:
            return GateVerdict((broken,), {}, tuple(UNITS))
        judged = channels if COLOUR in self.limits.high else None
        try:
            values = measure_image(image, judged)
        except ValueError as error:
            return GateVerdict((Reason(NOT_MEASURABLE, str(error)),), {}, tuple(UNITS))
        reasons = tuple(_beyond(self.limits, values))
        return GateVerdict(reasons, values, tuple(name for name in UNITS if name not in values))

    def duplicate(self, code: ImageCode) -> Reason | None:
        """Why an image of this code repeats an accepted one; None if it does not."""
        found = self._index.find_code(code)
        if found is None or found[1] > self.limits.duplicate_bits:
            return None
        number, bits = found
        if bits < 0:
            return Reason(DUPLICATE, f"the same as accepted image {number}")
        most = self.limits.duplicate_bits
        text = f"{bits} of 256 bits differ from accepted image {number}, limit {most}"
        return Reason(NEAR_DUPLICATE, text)


def _broken(image: NDArray[Any], channels: NDArray[Any] | None) -> Reason | None:
    """What makes an image not measurable."""
    A = amplitude(image)
    for name, values in (("pixels", A), ("channel values", channels)):
        if values is not None and (bad := int(values.size - np.isfinite(values).sum())):
            return Reason(NOT_FINITE, f"{bad} of {values.size} {name} are NaN or infinite")
    low, high = float(A.min()), float(A.max())
    if low < 0:
        return Reason(NEGATIVE, f"{int((A < 0).sum())} of {A.size} pixels are negative")
    if (zero := float((image == 0).mean())) > 0.5:
        return Reason(BLACK, f"{zero:.1%} of the pixels are 0")
    if high - low <= 1e-9 * high:
        return Reason(CONSTANT, f"all pixels are {high:g}")
    return None


def _beyond(limits: GateLimits, values: dict[str, float]) -> Iterator[Reason]:
    for name, value in values.items():
        unit = UNITS[name]
        if name in limits.low and value < limits.low[name]:
            text = f"{name} {value:.4g} {unit}, at least {limits.low[name]:.4g}"
            yield Reason(TOO_LITTLE[name], text)
        elif name in limits.high and value > limits.high[name]:
            text = f"{name} {value:.4g} {unit}, at most {limits.high[name]:.4g}"
            yield Reason(TOO_MUCH[name], text)
