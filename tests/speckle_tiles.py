"""Synthetic SAR tiles: correlated single-look speckle over bright and dark structures."""

from __future__ import annotations

import numpy as np
from scipy.signal.windows import taylor

N, SIZE = 16, 96


def aperture(size: int) -> np.ndarray:
    line = np.zeros(size)
    width = round(0.8 * size)
    start = (size - width) // 2
    line[start : start + width] = taylor(width, nbar=4, sll=30)
    return np.fft.ifftshift(line)


def speckle(rng: np.random.Generator, size: int) -> np.ndarray:
    """Single-look complex speckle (size, size) of unit power through the Taylor aperture."""
    field = rng.standard_normal((size, size)) + 1j * rng.standard_normal((size, size))
    H = np.outer(aperture(size), aperture(size))
    H /= np.sqrt((np.abs(H) ** 2).mean())
    return np.fft.ifft2(np.fft.fft2(field) * H) / np.sqrt(2)


def scene(rng: np.random.Generator, size: int = SIZE) -> np.ndarray:
    """Amplitude with bright-then-dark structures along range, as layover and shadow make them."""
    sigma0 = np.full((size, size), 0.05)
    for _ in range(6):
        row, col = rng.integers(8, size - 30, 2)
        height = rng.integers(8, 20)
        sigma0[row : row + height, col : col + 4] = 1.0
        sigma0[row : row + height, col + 4 : col + 18] = 0.003
    return np.abs(np.sqrt(sigma0) * speckle(rng, size))


def to_code(A: np.ndarray) -> np.ndarray:
    return np.round(255 * np.clip(A, 0, 1)).astype(np.uint8)


def tiles(seed: int, n: int = N, gain: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([to_code(gain * scene(rng)) for _ in range(n)])
