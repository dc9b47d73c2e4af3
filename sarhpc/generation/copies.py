"""The part of a gate that tells copies of training tiles, whatever their speckle (E11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.measures.ground_maps import ground_map
from sarhpc.measures.image_gate import Reason
from sarhpc.measures.map_search import MapIndex
from sarhpc.measures.memorisation import CopyLimit

MEMORISED = "memorised"
TRAINING_MAP = np.dtype([("key", "S64"), ("map", "<f2", (32, 32))])
"""A training tile in the file of a planned gate."""


@dataclass(frozen=True)
class PlannedCopies:
    """How copies are recognised, as it was planned."""

    sha256: str
    """Of the file of training maps."""
    limit: CopyLimit
    false_alarms: float
    """Share of images of other ground that may be taken for copies."""
    px: tuple[int, int]
    """Rows and columns of the middle of images and tiles that is compared."""
    most_shift: int
    """Cells."""

    @property
    def least(self) -> float:
        """Evidence beyond which an image is a copy."""
        return self.limit.at(self.false_alarms)

    def to_json(self) -> dict[str, Any]:
        """The values as an object of JSON."""
        return {
            "training_sha256": self.sha256,
            "false_alarms": self.false_alarms,
            "limit": self.least,
            "calibration": self.limit.to_json(),
            "px": list(self.px),
            "most_shift": self.most_shift,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PlannedCopies:
        """What `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        rows, columns = value["px"]
        return cls(
            str(value["training_sha256"]),
            CopyLimit.from_json(value["calibration"]),
            float(value["false_alarms"]),
            (int(rows), int(columns)),
            int(value["most_shift"]),
        )


class CopyGate:
    """Tells copies of training tiles; threads may call it at the same time.

    Args:
        planned: limit and sizes.
        training: maps and keys, of dtype `TRAINING_MAP`; may be mapped from disk.
    """

    def __init__(self, planned: PlannedCopies, training: NDArray[np.void]) -> None:
        self._planned, self._keys = planned, training["key"]
        self._index = MapIndex(training["map"], planned.most_shift)

    def find(self, pixels: NDArray[Any]) -> tuple[dict[str, Any], Reason | None]:
        """Evidence that an image (H, W) is a copy, as facts, and the reason against it if it is.

        Raises:
            ValueError: the image is smaller than what is compared.
        """
        found = self._index.nearest(ground_map(middle(pixels, self._planned.px))[None])
        evidence = float(self._planned.limit.evidence(found)[0])
        key = bytes(self._keys[int(found.number[0])]).decode(errors="replace")
        facts = {
            "nearest": key,
            "similarity": float(f"{found.similarity[0]:.4g}"),
            "evidence": float(f"{evidence:.4g}"),
        }
        if evidence <= self._planned.least:
            return facts, None
        text = (
            f"similarity {found.similarity[0]:.3g} to training tile {key}, stands out by "
            f"{evidence:.3g}, limit {self._planned.least:.3g}"
        )
        return facts, Reason(MEMORISED, text)


def middle(pixels: NDArray[Any], px: Sequence[int]) -> NDArray[Any]:
    """The middle `px` rows and columns of an image.

    Raises:
        ValueError: it is smaller.
    """
    if any(side < want for side, want in zip(pixels.shape, px, strict=True)):
        raise ValueError(
            f"image of shape {pixels.shape}: copies are looked for in {px[0]} x {px[1]} px"
        )
    row, column = ((side - want) // 2 for side, want in zip(pixels.shape, px, strict=True))
    return pixels[row : row + px[0], column : column + px[1]]
