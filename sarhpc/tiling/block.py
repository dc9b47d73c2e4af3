"""Blocks: rectangles of output pixels, read once, rotated, detected and resampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.scene import SarReader
from sarhpc.tiling.grid import SceneFrame
from sarhpc.tiling.orientation import Interval
from sarhpc.tiling.resampling import (
    apply_taps,
    band_limited,
    band_plan,
    halo_px,
    intensity_taps,
    needed_input,
)

_WHOLE = 0.999
_HALF = 0.5


@dataclass(frozen=True)
class Sampling:
    """How one scene is resampled to tile spacing; the same in all its blocks."""

    method: str
    """`fft` (band-limited complex), `multilook` (intensity), or `none`."""
    transition: float
    """Roll-off of the band-limiting filter, share of the kept band."""
    centroid: tuple[float, float] = (0.0, 0.0)
    """Centre of the spectrum along canonical (rows, cols), cycles per native pixel."""
    gain: float = 1.0
    """Factor on amplitude that restores the scene's mean intensity after the band was cut."""


@dataclass(frozen=True)
class Block:
    """Resampled pixels of a rectangle of output, in the canonical frame."""

    rows: Interval
    cols: Interval
    amplitude: NDArray[np.float32]
    """Amplitude (H, W), 0 where invalid; its square is sigma0 for a calibrated scene."""
    valid: NDArray[np.bool_]
    """Pixels (H, W) with data."""
    nonfinite: NDArray[np.bool_] | None
    """Pixels (H, W) lost to NaN or infinity in data declared valid; None if there are none."""
    field: NDArray[np.complex64] | None
    """Complex pixels (H, W) of a complex scene."""


@dataclass(frozen=True)
class Patch:
    """Native pixels of a canonical rectangle, with gaps and non-finite values set to zero."""

    rows: Interval
    cols: Interval
    pixels: NDArray[Any]
    """Complex64 field or float32 amplitude (H, W)."""
    valid: NDArray[np.bool_]
    nonfinite: NDArray[np.bool_] | None

    @property
    def intensity(self) -> NDArray[np.float32]:
        """Squared magnitude (H, W), 0 where invalid."""
        if np.iscomplexobj(self.pixels):
            return np.asarray(self.pixels.real**2 + self.pixels.imag**2, np.float32)
        return np.asarray(np.square(self.pixels), np.float32)


def read_patch(reader: SarReader, frame: SceneFrame, rows: Interval, cols: Interval) -> Patch:
    """Native pixels of the canonical window (rows, cols), rotated into the canonical frame."""
    window = frame.orientation.native_window(rows, cols, frame.native_shape)
    pixels, valid = reader.read(*window)
    nonfinite, kept = None, valid
    # One sum of squares is cheap, and is finite only if every pixel is.
    if not np.isfinite(np.vdot(pixels, pixels)):
        finite = np.isfinite(pixels)
        nonfinite, kept = valid & ~finite, valid & finite
    if not kept.all():
        # The array may be a buffer of the reader.
        pixels = pixels.copy()
        pixels[~kept] = 0
    turn = frame.orientation.apply
    return Patch(
        rows=rows,
        cols=cols,
        pixels=np.ascontiguousarray(turn(pixels)),
        valid=turn(kept),
        nonfinite=turn(nonfinite) if nonfinite is not None and nonfinite.any() else None,
    )


def read_block(
    reader: SarReader, frame: SceneFrame, sampling: Sampling, rows: Interval, cols: Interval
) -> Block:
    """Output pixels (rows, cols) of a scene, read with the halo their filter needs."""
    patch = patch_for(reader, frame, sampling, rows, cols)
    return resample_patch(patch, frame, sampling, rows, cols)


def patch_for(
    reader: SarReader, frame: SceneFrame, sampling: Sampling, rows: Interval, cols: Interval
) -> Patch:
    """The native pixels that output pixels (rows, cols) depend on."""
    height, width = frame.canonical_shape
    halo = [halo_px(r, sampling.transition) if sampling.method == "fft" else 0 for r in frame.ratio]
    wanted_rows = needed_input(rows, frame.ratio[0], halo[0], height)
    wanted_cols = needed_input(cols, frame.ratio[1], halo[1], width)
    return read_patch(reader, frame, wanted_rows, wanted_cols)


def resample_patch(
    patch: Patch, frame: SceneFrame, sampling: Sampling, rows: Interval, cols: Interval
) -> Block:
    """Output pixels (rows, cols) from the native pixels around them."""
    least = _WHOLE if sampling.method == "fft" else _HALF
    coverage = _coverage(patch, patch.valid, frame, rows, cols)
    valid = np.ones(_shape(rows, cols), np.bool_) if coverage is None else coverage >= least
    nonfinite = None
    if patch.nonfinite is not None:
        lost = _average(patch, patch.nonfinite.astype(np.float32), frame, rows, cols)
        nonfinite = (lost > 0) & ~valid
    field = None
    if sampling.method == "fft" or (sampling.method == "none" and np.iscomplexobj(patch.pixels)):
        field = _resample_field(patch, frame, sampling, rows, cols)
        amplitude = np.abs(field)
    else:
        intensity = _average(patch, patch.intensity, frame, rows, cols)
        if coverage is not None:
            intensity /= np.maximum(coverage, np.float32(1e-6))
        amplitude = np.sqrt(intensity, out=intensity)
    if coverage is not None:
        amplitude[~valid] = 0
    return Block(rows, cols, amplitude, valid, nonfinite, field)


def _resample_field(
    patch: Patch, frame: SceneFrame, sampling: Sampling, rows: Interval, cols: Interval
) -> NDArray[np.complex64]:
    field = np.asarray(patch.pixels, np.complex64)
    outputs, starts = (rows, cols), (patch.rows[0], patch.cols[0])
    # Columns first: they are contiguous, and their halo is dropped before the rows.
    for axis in (1, 0):
        if frame.ratio[axis] != 1:
            plan = band_plan(
                outputs[axis],
                frame.ratio[axis],
                starts[axis],
                sampling.transition,
                sampling.centroid[axis],
            )
            field = band_limited(field, axis, plan, outputs[axis][1] - outputs[axis][0])
    if sampling.gain != 1:
        field *= np.float32(sampling.gain)
    return field


def _coverage(
    patch: Patch, mask: NDArray[np.bool_], frame: SceneFrame, rows: Interval, cols: Interval
) -> NDArray[np.float32] | None:
    """Share of each output pixel that `mask` covers; None if it covers all of them."""
    if mask.all():
        return None
    return _average(patch, mask.astype(np.float32), frame, rows, cols)


def _average(
    patch: Patch, image: NDArray[np.float32], frame: SceneFrame, rows: Interval, cols: Interval
) -> NDArray[np.float32]:
    for axis, output, native in ((1, cols, patch.cols), (0, rows, patch.rows)):
        if frame.ratio[axis] != 1:
            image = apply_taps(image, axis, intensity_taps(output, frame.ratio[axis], *native))
    return np.array(image, np.float32)


def _shape(rows: Interval, cols: Interval) -> tuple[int, int]:
    return rows[1] - rows[0], cols[1] - cols[0]
