"""Tiles of made-up ground, and copies of them as a model that memorises would make them."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from sarhpc.measures.ground_maps import MOST_SHIFT_PX


def ground(seed: int, px: int = 128) -> np.ndarray:
    """Reflectivity (px, px) of fields and lines, 4 dB deviation."""
    rng = np.random.default_rng([seed, 11])
    fields = gaussian_filter(rng.standard_normal((px, px)), 5)
    return np.exp(0.9 * fields / fields.std())


def seen(reflectivity: np.ndarray, seed: int) -> np.ndarray:
    """Amplitude with single-look speckle of its own."""
    rng = np.random.default_rng([seed, 7])
    field = gaussian_filter(rng.standard_normal((2, *reflectivity.shape)), (0, 0.5, 0.5))
    power = np.square(field).sum(axis=0)
    return np.sqrt(reflectivity * power / power.mean())


def cut(image: np.ndarray, px: int, shift: tuple[int, int] = (0, 0)) -> np.ndarray:
    """The middle `px` rows and columns, moved by `shift`."""
    row, column = ((side - px) // 2 + by for side, by in zip(image.shape, shift, strict=True))
    return image[row : row + px, column : column + px]


def random_shift(rng: np.random.Generator, most: int = MOST_SHIFT_PX) -> tuple[int, int]:
    row, column = rng.integers(-most, most + 1, 2)
    return int(row), int(column)


def tiles_and_copies(
    count: int, px: int = 128, most: int = MOST_SHIFT_PX, seed: int = 0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A tile of each of `count` grounds, and of each a copy: new speckle, moved, half flipped."""
    rng = np.random.default_rng([seed, 3])
    tiles, copies = [], []
    for number in range(count):
        own = 1000 * seed + number
        of = ground(own, px + 2 * most)
        tiles.append(cut(seen(of, 2 * own), px))
        copy = cut(seen(of, 2 * own + 1), px, random_shift(rng, most))
        copies.append(copy[::-1] if number % 2 else copy)
    return tiles, copies
