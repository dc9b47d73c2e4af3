"""E7: the impulse response, measured on isolated point reflectors.

Cuts through the peak are interpolated by the discrete Fourier transform of the chip, which is exact
for a band-limited field. A complex chip is band-limited, wherever its band lies. Of a detected chip
only the intensity is, to twice the band of the complex image: it is interpolated where the sampling
holds that band, and refused where it does not. The amplitude is its square root, which has no band
limit, and is never interpolated.

Source: I. G. Cumming and F. H. Wong, Digital Processing of Synthetic Aperture Radar Data, 2005,
section 2.6 (IRW, PSLR and ISLR of a cut, the main lobe between its first nulls).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Field = NDArray[np.complex128]

OVERSAMPLING = 16
SIDELOBES_IRW = 10.0
"""Sidelobes count up to so many widths of the main lobe from the peak."""
LEAST_CHIP_PX = 32
LEAST_PEAK_DB = 20.0
"""Least height of a reflector over the clutter around it."""
ALIASED = 0.01
"""Largest share of the intensity spectrum that may reach half the sampling rate."""
SURE_OF_CLUTTER = 10.0
"""Clutter exceeds so many times its mean in one of 1,000 cuts of 28 cells: 28 exp(-10)."""


@dataclass(frozen=True)
class AxisResponse:
    """The impulse response along one axis."""

    irw_px: float
    """Impulse response width at half power, px."""
    irw_m: float
    pslr_db: float | None
    """Highest sidelobe over the peak, dB; None where clutter may be as high."""
    islr_db: float | None
    """Energy of the sidelobes over that of the main lobe, dB: of the cut, the main lobe between its
    first nulls, sidelobes to 10 widths. None where clutter may hold as much."""


@dataclass(frozen=True)
class PointResponse:
    """The impulse response of a reflector, or the mean of several."""

    range: AxisResponse
    azimuth: AxisResponse
    clutter_db: float
    """Clutter under the peak that is left after averaging, dB; PSLR and ISLR err by it."""
    reflectors: int


@dataclass(frozen=True)
class _Cuts:
    """Cuts of one chip through its peak, at steps of 1/16 px: field, or intensity if detected."""

    azimuth: Field
    range: Field
    peak: complex
    clutter: float
    """Mean power around the reflector."""


def point_response(chips: Sequence[ArrayLike], spacing_m: tuple[float, float]) -> PointResponse:
    """IRW, PSLR and ISLR along range and azimuth of the mean of one or more reflectors.

    Reflectors are aligned to a fraction of a pixel. Complex chips are averaged in phase, which
    lowers the clutter by their number; of detected chips the intensity is averaged, and the clutter
    subtracted.

    Args:
        chips: (H, W) of one size, each with its reflector in the middle and nothing else as bright;
            complex, or detected amplitude in float or 16-bit numbers. Range along columns.
        spacing_m: of rows and of columns, m.

    Raises:
        ValueError: 8-bit codes, clipped or non-finite pixels, a chip too small, a peak under 20 dB
            over the clutter, or detected chips whose sampling does not hold the band of intensity.
    """
    if not all(math.isfinite(step) and step > 0 for step in spacing_m):
        raise ValueError(f"spacing_m={spacing_m}: give two positive distances in metres")
    arrays = [np.asarray(chip) for chip in chips]
    if len({(array.shape, np.iscomplexobj(array)) for array in arrays}) != 1:
        raise ValueError("give one chip or more, of one size, all complex or all detected")
    fields = [_checked(array, f"chip {at}") for at, array in enumerate(arrays)]
    detected = not np.iscomplexobj(arrays[0])
    spectra = [np.fft.fft2(field) for field in fields]
    if not detected:
        spectra = _centred(spectra)
    cuts = [
        _cuts_of(field, spectrum, f"chip {at}", detected)
        for at, (field, spectrum) in enumerate(zip(fields, spectra, strict=True))
    ]
    along_azimuth, along_range, left = _mean_power(cuts, detected)
    return PointResponse(
        _axis_response(along_range, left, spacing_m[1]),
        _axis_response(along_azimuth, left, spacing_m[0]),
        10.0 * math.log10(max(left, 1e-30)),
        len(cuts),
    )


def _mean_power(cuts: Sequence[_Cuts], detected: bool) -> tuple[Array, Array, float]:
    """Power of the mean cuts over that of the peak, without clutter, and the clutter left in it.

    Weights are those of least squares for reflectors of various strength in clutter of one power.
    """
    weight = np.array([np.conj(cut.peak) for cut in cuts])
    strength = float((np.abs(weight) ** 2).sum())
    mean = [
        np.tensordot(weight, np.stack([getattr(cut, axis) for cut in cuts]), 1) / strength
        for axis in ("azimuth", "range")
    ]
    clutter = np.array([cut.clutter for cut in cuts])
    if detected:
        share = np.abs(weight) * clutter / strength
        azimuth, along_range = (cut.real - share.sum() for cut in mean)
        return azimuth, along_range, float(np.sqrt((share**2).sum()))
    left = float((np.abs(weight) ** 2 * clutter).sum()) / strength**2
    azimuth, along_range = (np.abs(cut) ** 2 - left for cut in mean)
    return azimuth, along_range, left


def _checked(chip: NDArray[np.generic], name: str) -> NDArray[np.generic]:
    """The field that may be interpolated: a complex chip, or the intensity of a detected one."""
    if chip.ndim != 2 or min(chip.shape) < LEAST_CHIP_PX:
        raise ValueError(f"{name}: shape {chip.shape}; give (H, W) of {LEAST_CHIP_PX} px or more")
    if not np.isfinite(chip).all():
        raise ValueError(f"{name}: pixels are not finite; leave this reflector out")
    if np.iscomplexobj(chip):
        return chip.astype(np.complex128)
    if np.unique(chip).size <= 256 < chip.size:
        raise ValueError(
            f"{name}: {np.unique(chip).size} levels, which are 8-bit codes: they clip reflectors "
            "and lose their sidelobes; give the complex image or amplitude of 16 bits or more"
        )
    intensity = chip.astype(np.float64) ** 2
    if np.count_nonzero(intensity == intensity.max()) > 1:
        raise ValueError(f"{name}: the peak is clipped; leave this reflector out")
    for axis, direction in ((0, "range"), (1, "azimuth")):
        line = np.abs(np.fft.fft(intensity.sum(axis)))
        edge = line[np.abs(np.fft.fftfreq(line.size)) > 0.45].max() / line[0]
        if edge > ALIASED:
            raise ValueError(
                f"{name}: along {direction} the intensity spectrum holds {edge:.3f} of its peak at "
                "half the sampling rate, so sampling cuts off its band (twice that of the complex "
                "image) and no interpolation is exact; give the complex image, or intensity "
                "detected at twice the sampling rate"
            )
    return intensity


def _centred(spectra: list[Field]) -> list[Field]:
    """Spectra with the middle of their common band at zero frequency; amplitudes stay."""
    power = np.sum([np.abs(spectrum) ** 2 for spectrum in spectra], axis=0)
    shifts = []
    for axis in (0, 1):
        line = power.sum(1 - axis)
        turn = np.angle((line * np.exp(2j * np.pi * np.arange(line.size) / line.size)).sum())
        shifts.append(-round(float(turn) / (2 * np.pi) * line.size))
    return [np.roll(spectrum, shifts, axis=(0, 1)) for spectrum in spectra]


def _cuts_of(field: NDArray[np.generic], spectrum: Field, name: str, detected: bool) -> _Cuts:
    power = np.abs(field) if detected else np.abs(field) ** 2
    row, col = (int(i) for i in np.unravel_index(np.argmax(power), power.shape))
    if any(abs(at - n // 2) > n // 8 for at, n in zip((row, col), field.shape, strict=True)):
        raise ValueError(
            f"{name}: its brightest pixel ({row}, {col}) is not in the middle of {field.shape}; "
            "cut the chip around the reflector, and leave out one with a brighter neighbour"
        )
    clutter = _clutter_power(power, row, col)
    if power[row, col] < 10 ** (LEAST_PEAK_DB / 10) * clutter:
        raise ValueError(
            f"{name}: its peak is less than {LEAST_PEAK_DB:.0f} dB over the clutter; leave it out"
        )
    at_row, at_col = _sub_pixel_peak(spectrum, row, col)
    reach = min(field.shape) // 2 - min(field.shape) // 8 - 1
    steps = np.arange(-reach * OVERSAMPLING, reach * OVERSAMPLING + 1) / OVERSAMPLING
    height, width = spectrum.shape
    azimuth = _kernel(height, at_row + steps) @ (spectrum @ _kernel(width, at_col)[0])
    along_range = _kernel(width, at_col + steps) @ (_kernel(height, at_row)[0] @ spectrum)
    return _Cuts(azimuth, along_range, complex(azimuth[reach * OVERSAMPLING]), clutter)


def _clutter_power(power: Array, row: int, col: int) -> float:
    """Mean power of clutter off the two arms of sidelobes, by the median of exponential speckle."""
    arm = min(power.shape) // 6
    rows = np.abs(np.arange(power.shape[0]) - row) > arm
    cols = np.abs(np.arange(power.shape[1]) - col) > arm
    return float(np.median(power[np.ix_(rows, cols)]) / math.log(2.0))


def _kernel(size: int, at: float | Array) -> Field:
    """Rows that turn a spectrum of `size` bins into the field at positions `at`, px."""
    bins = np.fft.fftfreq(size)
    turns: Array = np.multiply.outer(np.atleast_1d(np.asarray(at, np.float64)), bins)
    kernel: Field = np.exp(2j * np.pi * turns) / size
    return kernel


def _sub_pixel_peak(spectrum: Field, row: int, col: int) -> tuple[float, float]:
    """Position of the peak to about 1/1000 px, by interpolation and a parabola each way."""
    near = np.arange(-OVERSAMPLING, OVERSAMPLING + 1) / OVERSAMPLING
    rows, cols = (_kernel(n, at + near) for n, at in zip(spectrum.shape, (row, col), strict=True))
    power = np.abs(rows @ spectrum @ cols.T)
    i, j = (int(k) for k in np.unravel_index(np.argmax(power), power.shape))
    return (
        row + near[i] + _vertex(power[:, j], i) / OVERSAMPLING,
        col + near[j] + _vertex(power[i], j) / OVERSAMPLING,
    )


def _vertex(line: Array, at: int) -> float:
    if not 0 < at < line.size - 1:
        return 0.0
    before, here, after = line[at - 1 : at + 2]
    bend = float(before - 2.0 * here + after)
    return float(before - after) / (2.0 * bend) if bend < 0 else 0.0


def _axis_response(power: Array, clutter: float, spacing_m: float) -> AxisResponse:
    """Measures of a cut of power relative to its peak, which is in the middle."""
    middle = power.size // 2
    peak = float(power[middle])
    sides = [power[middle::-1] / peak, power[middle:] / peak]
    irw = sum(_half_power(side) for side in sides) / OVERSAMPLING
    reach = round(SIDELOBES_IRW * irw * OVERSAMPLING)
    if reach >= sides[0].size:
        need = math.ceil((SIDELOBES_IRW * irw + 1) / 0.375)
        raise ValueError(
            f"the main lobe is {irw:.2f} px wide and its sidelobes reach beyond the chip; give "
            f"chips of {need} px or more"
        )
    nulls = [_first_null(side, irw) for side in sides]
    lobes = np.concatenate([side[null:reach] for side, null in zip(sides, nulls, strict=True)])
    main = sum(float(side[:null].sum()) for side, null in zip(sides, nulls, strict=True)) - 1.0
    highest, energy = float(lobes.max(initial=0.0)), float(lobes.sum())
    sure = highest > SURE_OF_CLUTTER * clutter
    return AxisResponse(
        irw_px=irw,
        irw_m=irw * spacing_m,
        pslr_db=10.0 * math.log10(highest) if sure else None,
        islr_db=10.0 * math.log10(energy / main) if energy > lobes.size * clutter else None,
    )


def _half_power(side: Array) -> float:
    """Steps from the peak to half its power."""
    below = np.flatnonzero(side < 0.5)
    if below.size == 0:
        raise ValueError("the response does not fall to half its power within the chip")
    at = int(below[0])
    return at - float(0.5 - side[at]) / float(side[at - 1] - side[at])


def _first_null(side: Array, irw_px: float) -> int:
    """Step of the first minimum beyond one width; without weighting it is at 1.13 widths."""
    start = math.ceil(irw_px * OVERSAMPLING)
    rising = np.flatnonzero(np.diff(side[start:]) > 0)
    return start + int(rising[0]) if rising.size else side.size - 1
