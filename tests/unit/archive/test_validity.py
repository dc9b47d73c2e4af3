from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from sarhpc.archive.pixel_window import Range
from sarhpc.archive.zero_collar import find_collar, measure_collar


def flood(filled: np.ndarray) -> np.ndarray:
    """Zeros connected to the edge, the slow way."""
    regions, _ = label(~np.pad(filled, 1))
    return (regions == regions[0, 0])[1:-1, 1:-1]


def turned_rectangle(degrees: float) -> np.ndarray:
    row, col = np.mgrid[0:150, 0:170]
    angle = np.deg2rad(degrees)
    u = (col - 85) * np.cos(angle) + (row - 75) * np.sin(angle)
    v = (row - 75) * np.cos(angle) - (col - 85) * np.sin(angle)
    filled = (np.abs(u) < 60) & (np.abs(v) < 40)
    filled[70:80, 80:90] = False
    return filled


@pytest.mark.parametrize("degrees", [0, 17, 45, 80])
@pytest.mark.parametrize("strip", [1, 13, 150])
def test_the_collar_of_a_turned_scene_is_what_a_flood_fill_finds(
    degrees: float, strip: int
) -> None:
    filled = turned_rectangle(degrees)
    strips = [(row, filled[row : row + strip]) for row in range(0, 150, strip)]
    collar = measure_collar(filled.shape, strips)
    whole = ~filled & collar.covers((0, 150), (0, 170))
    assert np.array_equal(whole, flood(filled))
    part = ~filled[40:90, 60:100] & collar.covers((40, 90), (60, 100))
    assert np.array_equal(part, whole[40:90, 60:100])


@pytest.mark.parametrize("degrees", [0, 17, 45, 80])
@pytest.mark.parametrize("rim", [False, True])
def test_the_collar_found_by_windows_is_that_of_the_whole(degrees: float, rim: bool) -> None:
    inside = turned_rectangle(degrees)
    filled = np.pad(inside[60:90, 70:100], 4, constant_values=True) if rim else inside
    read: list[int] = []

    def window(rows: Range, cols: Range) -> np.ndarray:
        part = filled[slice(*rows), slice(*cols)]
        read.append(part.size)
        return part

    found = find_collar(filled.shape, window, pixel_bytes=1 << 16, block=(4, 16))
    whole = measure_collar(filled.shape, [(0, filled)])
    for name in ("left", "right", "top", "bottom"):
        assert np.array_equal(getattr(found, name), getattr(whole, name))
    # A picture filled to its rim has none, which its rim alone tells.
    assert (sum(read) < filled.size) == rim
    read.clear()
    assert np.array_equal(find_collar(filled.shape, window).left, whole.left)
    assert sum(read) == filled.size, "rows that lie together are read once, and no column first"


def test_an_empty_image_is_all_collar() -> None:
    collar = measure_collar((6, 7), [(0, np.zeros((6, 7), bool))])
    assert collar.covers((0, 6), (0, 7)).all()
    assert collar.is_whole_image


def test_a_full_image_has_no_collar() -> None:
    collar = measure_collar((6, 7), [(0, np.ones((6, 7), bool))])
    assert not collar.covers((0, 6), (0, 7)).any()
    assert not collar.is_whole_image
