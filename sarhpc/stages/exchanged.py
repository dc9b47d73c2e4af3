"""Inputs of other images, with which a measure of images and their inputs is controlled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def exchanged(inputs: Sequence[NDArray[Any]], distance: int) -> list[NDArray[Any]] | None:
    """For each input another one, from `distance` images on; None if all are alike.

    Inputs are used in turn, and images of a layout share one: any fixed distance may meet the same.
    """
    codes, count = [each.tobytes() for each in inputs], len(inputs)
    found = []
    for number, code in enumerate(codes):
        places = [(number + distance + step) % count for step in range(count)]
        other = next((place for place in places if codes[place] != code), None)
        if other is None:
            return None
        found.append(inputs[other])
    return found
