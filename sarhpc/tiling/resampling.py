"""Power-preserving resampling: band-limited for complex pixels, intensity average for amplitude.

Both work on one axis at a time with a rational ratio p/q, on blocks with a halo, and give the
samples that the whole scene would give. Output pixel k is centred at native position
(k + 0.5) * q / p - 0.5, so that pixel corners, and with them the affine, stay where they are.

Complex: the spectrum is cut to the output band around its own centre (airborne spectra are rarely
centred) and the inverse transform is taken on fewer points. Linear in the field, so single-look
speckle stays single-look. A scene-wide gain then restores the mean intensity (survey.py).

Amplitude: intensity is averaged over the footprint of the output pixel (never amplitude: -0.5 dB
at a ratio of 1/2, nor dB), weighted by validity. Where the output is finer than the input,
intensity is interpolated linearly: mean kept, ENL raised, and the new ENL recorded.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from sarhpc.tiling.orientation import Interval

_KERNEL_REACH = 2.75
"""Halo in units of 1 / (transition * cut-off): leaves less than -70 dB of the kernel outside."""

_CACHE_SAMPLES = 1 << 16
"""Complex samples (8 bytes each) that a core keeps in its own cache: 1 MB."""


def halo_px(ratio: Fraction, transition: float) -> int:
    """Native pixels around a block that its band-limited samples depend on."""
    return 0 if ratio == 1 else math.ceil(_KERNEL_REACH / (transition * cutoff(ratio)))


def cutoff(ratio: Fraction | float) -> float:
    """Half of the band that both grids support, cycles per native pixel."""
    return min(float(ratio), 1.0) / 2


def _centre(output: int, ratio: Fraction) -> Fraction:
    """Native position of the centre of an output pixel (0 = centre of the first native pixel)."""
    return (output + Fraction(1, 2)) / ratio - Fraction(1, 2)


def needed_input(output: Interval, ratio: Fraction, halo: int, limit: int) -> Interval:
    """Native pixels to read for output pixels `output`, halo included, inside [0, limit)."""
    start, stop = _reach(output, ratio, halo)
    if halo > 0:
        # To the full length of the transform: a few more pixels avoid a copy into a longer array.
        stop = start + _transform_length(stop - start, ratio)
    return max(start, 0), min(stop, limit)


def _transform_length(least: int, ratio: Fraction) -> int:
    """A fast transform length >= `least` that the ratio maps to an integer."""
    q = ratio.denominator
    return q * int(scipy.fft.next_fast_len(math.ceil(max(least, 1) / q)))


def _reach(output: Interval, ratio: Fraction, halo: int) -> Interval:
    if ratio == 1:
        return output
    first, last = _centre(output[0], ratio), _centre(output[1] - 1, ratio)
    footprint = max(math.ceil(1 / ratio), 1)
    return math.floor(first) - max(halo, footprint), math.ceil(last) + 1 + max(halo, footprint)


@dataclass(frozen=True)
class BandPlan:
    """Resampling of one axis: which spectral bins are kept, and their weights."""

    size: int
    """Length of the forward transform; the input is padded with zeros to it."""
    runs: tuple[tuple[slice, slice], ...]
    """Bins of the output, and those of the forward transform that they come from, run by run."""
    weight: NDArray[np.complex64]
    """Filter times sub-pixel shift, per output bin; 0 outside the runs."""


@functools.lru_cache(maxsize=64)
def band_plan(
    output: Interval, ratio: Fraction, start: int, transition: float, centroid: float
) -> BandPlan:
    """The plan that gives pixels `output` from input whose first sample is native pixel `start`.

    Args:
        output: half-open range of output pixels.
        ratio: output per native pixels.
        start: native index of the first input sample.
        transition: share of the kept band over which the filter rolls off.
        centroid: centre of the scene's spectrum, cycles per native pixel.
    """
    reach = _reach(output, ratio, halo_px(ratio, transition))
    size = _transform_length(reach[1] - reach[0], ratio)
    size_out = int(size * ratio)
    # Frequencies are signed around the centroid: a shift by a fraction of a pixel needs the true
    # frequency, not its alias.
    kept = min(size, size_out)
    first = math.floor(centroid * size - kept / 2) + 1
    frequency = np.arange(first, first + kept)
    shift = float(_centre(output[0], ratio) - start)
    weight = roll_off(frequency / size - centroid, cutoff(ratio), transition) * np.exp(
        2j * np.pi * frequency * shift / size
    )
    spread = np.zeros(size_out, np.complex64)
    spread[frequency % size_out] = weight * (size_out / size)
    return BandPlan(size, _runs(first, kept, size_out, size), spread)


def _runs(first: int, count: int, size_out: int, size: int) -> tuple[tuple[slice, slice], ...]:
    """Slices of output and input bins that hold frequencies [first, first + count) unbroken."""
    found = []
    end = first + count
    while first < end:
        to, source = first % size_out, first % size
        length = min(end - first, size_out - to, size - source)
        found.append((slice(to, to + length), slice(source, source + length)))
        first += length
    return tuple(found)


def roll_off(
    frequency: NDArray[np.float64], half_band: float, transition: float
) -> NDArray[np.float64]:
    """1 inside the band, 0 from `half_band` on, a quintic step of three continuous derivatives."""
    x = np.clip((half_band - np.abs(frequency)) / (transition * half_band), 0, 1)
    return np.asarray(x**3 * (10 + x * (6 * x - 15)), np.float64)


def band_limited(
    field: NDArray[np.complex64], axis: int, plan: BandPlan, count: int
) -> NDArray[np.complex64]:
    """The first `count` output samples of `field` along `axis`."""
    if axis == 0:
        samples = np.empty((count, field.shape[1]), np.complex64)
        for part in _parts(field.shape[1], plan.size):
            samples[:, part] = _band_limited(field[:, part], 0, plan)[:count]
        return samples
    samples = np.empty((field.shape[0], count), np.complex64)
    for part in _parts(field.shape[0], plan.size):
        samples[part] = _band_limited(field[part], 1, plan)[:, :count]
    return samples


def _parts(length: int, size: int) -> Iterator[slice]:
    """Slices of lines that are transformed together because they fit the cache."""
    step = max(_CACHE_SAMPLES // size, 1)
    return (slice(first, first + step) for first in range(0, length, step))


def _band_limited(field: NDArray[np.complex64], axis: int, plan: BandPlan) -> NDArray[np.complex64]:
    spectrum = scipy.fft.fft(field, plan.size, axis=axis)
    weight = plan.weight[:, None] if axis == 0 else plan.weight
    shape = (weight.size, field.shape[1]) if axis == 0 else (field.shape[0], weight.size)
    kept = np.zeros(shape, np.complex64)
    for to, source in plan.runs:
        if axis == 0:
            np.multiply(spectrum[source], weight[to], out=kept[to])
        else:
            np.multiply(spectrum[:, source], weight[to], out=kept[:, to])
    samples: NDArray[np.complex64] = scipy.fft.ifft(kept, axis=axis, overwrite_x=True)
    return samples


@dataclass(frozen=True)
class Taps:
    """A short kernel per output pixel: indices (N, K) into the input and weights (N, K)."""

    index: NDArray[np.intp]
    weight: NDArray[np.float32]


@functools.lru_cache(maxsize=64)
def intensity_taps(output: Interval, ratio: Fraction, start: int, stop: int) -> Taps:
    """Kernels of output pixels on the input [start, stop): footprint average, or linear.

    Weights of one pixel sum to 1; beyond the input its edge pixel is repeated.
    """
    k = np.arange(*output, dtype=np.float64)
    step = float(1 / ratio)
    if ratio > 1:
        position = (k + 0.5) * step - 0.5
        first = np.floor(position)
        weight = np.stack([1 - (position - first), position - first], axis=1)
    else:
        low, high = k * step, (k + 1) * step
        first = np.floor(low + 1e-9)
        pixel = first[:, None] + np.arange(math.ceil(step) + 1)
        overlap = np.minimum(pixel + 1, high[:, None]) - np.maximum(pixel, low[:, None])
        weight = np.maximum(overlap, 0) / step
        weight[weight < 1e-9] = 0
        weight = weight[:, weight.any(axis=0)]
    index = first[:, None].astype(np.intp) + np.arange(weight.shape[1])
    return Taps(np.clip(index, start, stop - 1) - start, weight.astype(np.float32))


def apply_taps(image: NDArray[np.float32], axis: int, taps: Taps) -> NDArray[np.float32]:
    """Weighted sum of `image` (H, W) along `axis` at every output pixel."""
    shape = (-1, 1) if axis == 0 else (1, -1)
    total = np.take(image, taps.index[:, 0], axis=axis)
    total *= taps.weight[:, 0].reshape(shape)
    for k in range(1, taps.index.shape[1]):
        term = np.take(image, taps.index[:, k], axis=axis)
        term *= taps.weight[:, k].reshape(shape)
        total += term
    return total


def looks_factor(taps: Taps, correlation: NDArray[np.float64]) -> float:
    """Factor by which averaging with `taps` raises the equivalent number of looks.

    Args:
        taps: kernels of the output pixels along one axis.
        correlation: autocorrelation of speckle intensity at lags 0, 1, ... along that axis;
            [1] for white speckle, in which case the factor is 1 / sum(w^2).
    """
    width = taps.weight.shape[1]
    padded = np.zeros(max(width, 1))
    padded[: min(width, correlation.size)] = correlation[:width]
    lag = np.abs(np.subtract.outer(np.arange(width), np.arange(width)))
    weight = taps.weight.astype(np.float64)
    variance = np.einsum("nk,kl,nl->n", weight, padded[lag], weight)
    return float(1 / variance.mean())
