"""Scenes held in memory: readers and an archive over arrays, and simulated speckle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sarhpc.archive.scene import SarHeader, Scene
from sarhpc.tiling.block import Sampling, read_block
from sarhpc.tiling.orientation import Orientation, compose

LAMBERT93 = "EPSG:2154"


@dataclass
class ArrayReader:
    """A SAR image whose pixels are an array; counts what is read of it."""

    header: SarHeader
    pixels: np.ndarray
    valid: np.ndarray
    reads: list[tuple[tuple[int, int], tuple[int, int]]] = field(default_factory=list)
    closed: int = 0

    def read(self, rows, cols):
        self.reads.append((rows, cols))
        assert 0 <= rows[0] < rows[1] <= self.header.shape[0]
        assert 0 <= cols[0] < cols[1] <= self.header.shape[1]
        return self.pixels[slice(*rows), slice(*cols)].copy(), self.valid[
            slice(*rows), slice(*cols)
        ].copy()

    def close(self):
        self.closed += 1


def array_reader(pixels, spacing_m=0.2, *, valid=None, **header: Any) -> ArrayReader:
    """A calibrated reader over `pixels`; header fields can be replaced."""
    spacing = (spacing_m, spacing_m) if np.isscalar(spacing_m) else spacing_m
    known = SarHeader(
        shape=pixels.shape,
        is_complex=np.iscomplexobj(pixels),
        affine=(spacing[1], 0.0, 700_000.0, 0.0, -spacing[0], 6_250_000.0),
        crs=LAMBERT93,
        spacing_m=spacing,
        range_direction="+col",
        looks=1.0,
        calibration="sigma0",
    )
    mask = np.ones(pixels.shape, bool) if valid is None else valid
    return ArrayReader(replace(known, **header), pixels, mask)


@dataclass
class ArrayArchive:
    """An archive whose scenes are opened by calling what is stored under their id."""

    readers: Mapping[str, Callable[[], ArrayReader]]
    scenes: Mapping[str, Scene] = field(default_factory=dict)

    def search(self, *, band=None, bbox=None, datetime=None, ids=None) -> Iterator[Scene]:
        for name in sorted(self.readers):
            if ids is None or name in ids:
                yield self.scenes.get(name, Scene(name, {}))

    def open(self, scene: Scene) -> ArrayReader:
        return self.readers[scene.id]()


def white_speckle(shape, seed=0, power=1.0):
    """Complex circular Gaussian (H, W) of mean intensity `power`, white over the whole band."""
    rng = np.random.default_rng(seed)
    field = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return (field * np.sqrt(power / 2)).astype(np.complex64)


def band_speckle(shape, fraction=0.8, centre=(0.0, 0.0), seed=0):
    """Complex speckle of unit mean intensity that fills `fraction` of the band around `centre`."""
    spectrum = np.fft.fft2(white_speckle(shape, seed))
    for axis, middle in enumerate(centre):
        distance = np.fft.fftfreq(shape[axis]) - middle
        keep = np.abs(distance - np.round(distance)) <= fraction / 2
        spectrum *= keep[:, None] if axis == 0 else keep
    field = np.fft.ifft2(spectrum)
    return (field / np.sqrt(np.mean(np.abs(field) ** 2))).astype(np.complex64)


def whole(reader, frame, method="fft", **sampling):
    """All output pixels of a scene in one block."""
    rows, cols = frame.shape
    how = Sampling(method, sampling.pop("transition", 0.1), **sampling)
    return read_block(reader, frame, how, (0, rows), (0, cols))


def stored_as(canonical, affine, direction, mirrored):
    """The same ground stored with another range direction: native pixels and their affine."""
    # Each entry undoes the canonical rotation of that direction, by hand.
    native = {
        "+col": lambda x: x,
        "-col": lambda x: x[::-1, ::-1],
        "+row": lambda x: x[::-1, :].T,
        "-row": lambda x: x[:, ::-1].T,
    }[direction]
    rows, cols = canonical.shape
    if mirrored:
        canonical, affine = canonical[::-1], compose(affine, (1, 0, 0, 0, -1, rows))
    turn = {
        "+col": (1, 0, 0, 0, 1, 0),
        "-col": (-1, 0, cols, 0, -1, rows),
        "+row": (0, 1, 0, -1, 0, rows),
        "-row": (0, -1, cols, 1, 0, 0),
    }[direction]
    return np.ascontiguousarray(native(canonical)), compose(affine, turn)


def intensity(pixels):
    return np.abs(pixels.astype(np.complex128)) ** 2


IDENTITY = Orientation()
