"""The part of a gate that tells images of another class than their prompt names (E10)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.generation.plan import ImageRequest
from sarhpc.measures.class_margins import class_margins
from sarhpc.measures.image_gate import Reason

OTHER_CLASS = "other class"
"""The reason."""
CLASSES = "other_class"
"""Entry of planned gates, of `gate` in `meta.json`, and of `gate.json`."""
CLASS_MARGIN = "class_margin"
"""Value of an image: similarity to the class of its prompt less that to the nearest other."""

See = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Unit vector (D,) of the codes (H, W) of a picture; threads call it at the same time."""
Asked = Callable[[ImageRequest], str | None]
"""Class that an image should show; None where its prompt names none."""


@dataclass(frozen=True)
class ClassLimit:
    """A class as it was planned."""

    vector: tuple[float, ...]
    """Of its captions."""
    least: float
    """Margin below which an image shows another class."""
    false_rejects: float
    """Share of real tiles of the class that lie below it at most."""
    tiles: int
    """Real tiles that it is from."""


@dataclass(frozen=True)
class PlannedClasses:
    """How images of another class are recognised, as it was planned."""

    model: str
    """Name of the CLIP."""
    sha256: str
    """Of its files."""
    phrases: Mapping[str, tuple[str, ...]]
    """Class -> phrases that name it in a caption, also of classes without a limit."""
    limits: Mapping[str, ClassLimit]
    """By class, in the order of their names."""
    accuracy: Mapping[str, float]
    """Balanced accuracy on the real tiles: `value`, and `low` and `high` of its interval."""

    def summary(self) -> dict[str, Any]:
        """The values that a person reads, as an object of JSON."""
        return {
            "model": self.model,
            "model_sha256": self.sha256,
            "balanced_accuracy": dict(self.accuracy),
            "classes": {
                name: {"limit": one.least, "false_rejects": one.false_rejects, "tiles": one.tiles}
                for name, one in self.limits.items()
            },
        }

    def to_json(self) -> dict[str, Any]:
        """All values as an object of JSON."""
        return {
            **self.summary(),
            "phrases": {name: list(phrases) for name, phrases in self.phrases.items()},
            "vectors": {name: list(one.vector) for name, one in self.limits.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PlannedClasses:
        """What `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        limits = {
            name: ClassLimit(
                tuple(float(x) for x in value["vectors"][name]),
                float(one["limit"]),
                float(one["false_rejects"]),
                int(one["tiles"]),
            )
            for name, one in sorted(value["classes"].items())
        }
        return cls(
            str(value["model"]),
            str(value["model_sha256"]),
            {name: tuple(phrases) for name, phrases in value["phrases"].items()},
            limits,
            {name: float(x) for name, x in value["balanced_accuracy"].items()},
        )


@dataclass(frozen=True)
class JudgedClass:
    """An image against the class that it should show."""

    asked: str
    nearest_other: str
    margin: float


class ClassGate:
    """Tells images of another class; threads may call it at the same time.

    Args:
        planned: classes and their limits.
        see: of the CLIP that was planned with.
        asked: what an image should show.
    """

    def __init__(self, planned: PlannedClasses, see: See, asked: Asked) -> None:
        self._limits, self._names = planned.limits, list(planned.limits)
        self._vectors = np.array([one.vector for one in planned.limits.values()])
        self._see, self._asked = see, asked

    def find(
        self, codes: NDArray[np.uint8], request: ImageRequest
    ) -> tuple[JudgedClass | None, Reason | None]:
        """What was found of the class of an image, and the reason against it if there is one.

        None of an image that should show no class with a limit.
        """
        asked = self._asked(request)
        if asked is None or asked not in self._limits:
            return None, None
        number = np.array([self._names.index(asked)])
        margin, nearest = class_margins(self._see(codes)[None], self._vectors, number)
        other, least = self._names[int(nearest[0])], self._limits[asked].least
        value = float(margin[0])
        judged = JudgedClass(asked, other, value)
        if value >= least:
            return judged, None
        text = f"shows {other} rather than {asked}, margin {value:.3g}, limit {least:.3g}"
        return judged, Reason(OTHER_CLASS, text)
