"""Crops of optical and SAR tiles to train the autoencoder on, chosen by (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpc.errors import DataError

Images = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class SarCrops:
    """Crops (size, size) of SAR images."""

    crops: Images
    sources: tuple[int, ...]
    """Number of the image that each is of."""


@dataclass(frozen=True)
class TilePool:
    """Optical images (H, W, 3) and SAR images (H, W), 8 bit; scenes or tiles of any size."""

    optical: Images
    sar: Images

    def __post_init__(self) -> None:
        if not self.optical or not self.sar:
            raise DataError(
                f"a tile pool needs optical and SAR images, got {len(self.optical)} and "
                f"{len(self.sar)}; tile an archive with optical cover first"
            )

    def batch(self, seed: int, step: int, count: int, size: int) -> Tensor:
        """Crops (count, 3, size, size) in [-1, 1]: the first half optical, the second half SAR.

        SAR crops keep their range axis and are mirrored in azimuth at random; optical crops are
        mirrored both ways.
        """
        rng = np.random.default_rng([seed, step])
        optical = [_crop(rng, self.optical, size) for _ in range(count // 2)]
        sar = [_crop(rng, self.sar, size) for _ in range(count - count // 2)]
        optical = [_mirrored(rng, crop, (0, 1)) for crop in optical]
        sar = [_mirrored(rng, crop, (0,)) for crop in sar]
        return torch.stack([as_input(crop) for crop in optical + sar])

    def fixed(self, count: int, size: int, *, seed: int = 7) -> tuple[Images, SarCrops]:
        """`count` optical and `count` SAR crops, the same at every call."""
        rng = np.random.default_rng([seed, count])
        optical = [_crop(rng, self.optical, size) for _ in range(count)]
        return optical, _sar_crops(rng, self.sar, count, size)


def sar_batch(tiles: Images, seed: int, step: int, count: int, size: int) -> Tensor:
    """Crops (count, 3, size, size) in [-1, 1] of SAR images, mirrored in azimuth at random."""
    rng = np.random.default_rng([seed, step])
    crops = [_crop(rng, tiles, size) for _ in range(count)]
    return torch.stack([as_input(_mirrored(rng, crop, (0,))) for crop in crops])


def sar_crops(tiles: Images, count: int, size: int, *, seed: int = 7) -> SarCrops:
    """`count` crops (size, size) of SAR images, the same at every call."""
    return _sar_crops(np.random.default_rng([seed, count]), tiles, count, size)


def load_pool(folder: Path) -> TilePool:
    """The pool of `*.optical.npy` (H, W, 3) and `*.sar.npy` (H, W) files, memory-mapped.

    Raises:
        DataError: a kind of image is missing.
    """
    return TilePool(
        [np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.optical.npy"))],
        [np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.sar.npy"))],
    )


def as_input(image: NDArray[np.uint8]) -> Tensor:
    """An 8-bit image, gray (H, W) or RGB (H, W, 3), as floats (3, H, W) in [-1, 1]."""
    array = np.asarray(image, dtype=np.float32) / 127.5 - 1
    rgb = np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else array
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))


def as_rgb8(image: Tensor) -> NDArray[np.uint8]:
    """Floats (3, H, W) in [-1, 1] as 8-bit RGB (H, W, 3)."""
    array = image.detach().float().numpy().transpose(1, 2, 0)
    scaled: NDArray[np.uint8] = np.clip(np.rint((array + 1) * 127.5), 0, 255).astype(np.uint8)
    return scaled


def as_gray8(image: Tensor) -> NDArray[np.uint8]:
    """Floats (3, H, W) in [-1, 1] as 8-bit gray (H, W): the mean of the channels."""
    return as_rgb8(image.detach().mean(0, keepdim=True).expand(3, -1, -1))[..., 0]


def _sar_crops(rng: np.random.Generator, images: Images, count: int, size: int) -> SarCrops:
    drawn = [_numbered_crop(rng, images, size) for _ in range(count)]
    return SarCrops([crop for _, crop in drawn], tuple(source for source, _ in drawn))


def _crop(rng: np.random.Generator, images: Images, size: int) -> NDArray[np.uint8]:
    return _numbered_crop(rng, images, size)[1]


def _numbered_crop(
    rng: np.random.Generator, images: Images, size: int
) -> tuple[int, NDArray[np.uint8]]:
    """Number of an image, and a crop of it."""
    number = int(rng.integers(len(images)))
    image = images[number]
    rows, cols = image.shape[:2]
    if rows < size or cols < size:
        raise DataError(f"a crop of {size} px does not fit an image of {rows} x {cols} px")
    row, col = (int(rng.integers(limit - size + 1)) for limit in (rows, cols))
    return number, np.asarray(image[row : row + size, col : col + size])


def _mirrored(
    rng: np.random.Generator, crop: NDArray[np.uint8], axes: tuple[int, ...]
) -> NDArray[np.uint8]:
    for axis in axes:
        if rng.random() < 0.5:
            crop = np.flip(crop, axis)
    return crop
