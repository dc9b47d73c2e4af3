"""Images whose class shows in their texture alone, as E12 learns from them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sarhpc.evaluation.use.data import UseData

CLASSES = ("across", "along", "plain")
"""Stripes along columns, along rows, or none."""


def textures(
    seed: int, per_class: int, px: int = 32, contrast_db: float = 4.0
) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W) in dB of single-look speckle on stripes of any width, and their classes."""
    rng = np.random.default_rng(seed)
    number = np.repeat(np.arange(len(CLASSES)), per_class)
    images = np.empty((number.size, px, px), np.float16)
    for n, which in enumerate(number):
        wave = np.sin(np.arange(px) * 2 * np.pi / rng.uniform(5, 12) + rng.uniform(0, 2 * np.pi))
        stripes = (np.tile(wave, (px, 1)), np.tile(wave[:, None], (1, px)), np.zeros((px, px)))
        speckle = 10 * np.log10(np.maximum(rng.exponential(size=(px, px)), 1e-4))
        images[n] = contrast_db * stripes[which] + speckle - 20 + rng.normal(0, 2)
    return images, number.astype(np.uint8)


def use_data(
    synthetic: tuple[np.ndarray, np.ndarray], *, train: int = 40, test: int = 30, groups: int = 10
) -> UseData:
    """Real textures to train and to test on, and these synthetic ones."""
    parts = {"train": textures(1, train), "test": textures(2, test), "synthetic": synthetic}
    names: Mapping[str, tuple[str, ...]] = {
        part: tuple(f"{part}-{n % groups}" for n in range(len(images)))
        for part, (images, _) in parts.items()
    }
    return UseData(
        CLASSES,
        {part: images for part, (images, _) in parts.items()},
        {part: targets for part, (_, targets) in parts.items()},
        names,
        flips=False,
        notes=(),
        pixels="amplitude",
        grouped=True,
    )
