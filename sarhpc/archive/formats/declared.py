"""Values that a scene's properties declare and several formats need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

from hpc.errors import DataError
from sarhpc.archive.scene import RangeDirection


class UndeclaredError(DataError):
    """A file does not state what is needed of it, and a user can declare."""

    def __init__(self, message: str, **assumed: Any) -> None:
        super().__init__(message)
        self.assumed = assumed
        """Entries of a declaration -> a valid value, to go on looking for other faults with."""


def range_direction(properties: Mapping[str, Any], path: Path) -> RangeDirection:
    """The declared range direction.

    Raises:
        UndeclaredError: it is not declared, or not one of the four directions.
    """
    direction = properties.get("sarhpc:range_direction")
    if direction not in get_args(RangeDirection):
        found = "not stated" if direction is None else direction
        raise UndeclaredError(
            f"the range direction of {path} is unknown ({found}); declare range_direction in "
            f"sarhpc.yaml: {', '.join(get_args(RangeDirection))} (where slant range grows)",
            range_direction="+col",
        )
    return cast("RangeDirection", direction)


def looks_of(properties: Mapping[str, Any]) -> float:
    """Equivalent number of looks; 1 where nothing is known."""
    looks = properties.get("sar:looks_equivalent_number")
    if looks is None:
        looks = properties.get("sar:looks_range", 1) * properties.get("sar:looks_azimuth", 1)
    return float(looks)
