"""Random fields of the ground: smooth Gaussian noise, fractal relief and random cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Field = NDArray[np.float32]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale_px: float) -> Field:
    """Unit-variance Gaussian field (H, W) with Gaussian correlation, exp(-d^2 / (4 scale^2)).

    Scales above 4 px are drawn on a coarser grid and interpolated: the cost does not grow with
    the scale.
    """
    step = max(1, int(scale_px / 2.5))
    margin = 4
    coarse = tuple(n // step + 2 + 2 * margin for n in shape)
    white = rng.standard_normal(coarse, dtype=np.float32)
    sigma = scale_px / step
    if sigma < 0.3:
        return white[margin : margin + shape[0], margin : margin + shape[1]]
    smooth = ndimage.gaussian_filter(white, sigma, mode="wrap", truncate=3.5)
    # The cubic B-spline that enlarges below smooths by a further 1/3 px^2.
    smooth *= _gain(sigma if step == 1 else (sigma**2 + 1 / 3) ** 0.5)
    smooth = smooth[margin:-margin, margin:-margin]
    return enlarge(smooth, step, shape)


def _gain(sigma: float) -> float:
    """Factor that gives back unit variance after a sampled Gaussian of width `sigma` px."""
    reach = int(3.5 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    return float(1 / (kernel**2).sum())


def enlarge(coarse: Field, step: int, shape: tuple[int, int]) -> Field:
    """`coarse` sampled `step` times finer, cubic along each axis, cut to `shape`."""
    if step == 1:
        return np.ascontiguousarray(coarse[: shape[0], : shape[1]])
    rows = _cubic(coarse, step, shape[0])
    return np.ascontiguousarray(_cubic(rows.T, step, shape[1]).T)


def _cubic(coarse: Field, step: int, n: int) -> Field:
    """Cubic B-spline interpolation along axis 0; the caller's field is already smooth."""
    position = np.arange(n, dtype=np.float32) / step
    index = position.astype(np.intp)
    t = (position - index)[:, None]
    weights = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    last = len(coarse) - 1
    out = np.zeros((n, coarse.shape[1]), dtype=np.float32)
    for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
        out += weight * coarse[np.clip(index + offset, 0, last)]
    return out


def fractal_noise(
    rng: np.random.Generator, shape: tuple[int, int], exponent: float, step: int
) -> Field:
    """Field (H, W) with power spectrum f^-exponent, zero mean and unit standard deviation.

    Synthesised on a grid `step` times coarser and twice as wide, so that it is not periodic.
    """
    coarse = tuple(n // step + 4 for n in shape)
    size = tuple(fft.next_fast_len(2 * n, real=True) for n in coarse)
    frequency = np.hypot(fft.fftfreq(size[0])[:, None], fft.rfftfreq(size[1])[None, :])
    frequency[0, 0] = np.inf
    spectrum = fft.rfft2(rng.standard_normal(size)) * frequency ** (-exponent / 2)
    relief = fft.irfft2(spectrum, s=size)[: coarse[0], : coarse[1]].astype(np.float32)
    relief = enlarge(relief, step, shape)
    relief -= relief.mean()
    return relief / max(float(relief.std()), 1e-9)


@dataclass(frozen=True)
class Cells:
    """Random (Voronoi-like) cells over a plane, each array (H, W).

    `index` numbers the cells, `f1` and `f2` are the distances to the nearest and second nearest
    seed in units of the cell size, `seed_u`, `seed_v` the position of the nearest seed in metres.
    """

    index: NDArray[np.int32]
    f1: Field
    f2: Field
    seed_u: Field
    seed_v: Field
    count: int


def cells(
    rng: np.random.Generator, u: Field, v: Field, size_m: tuple[float, float], jitter: float
) -> Cells:
    """Cells around seeds jittered about a grid of `size_m` = (along u, along v) metres.

    `jitter` (0..0.5) is the largest displacement as a fraction of the grid; the search over the
    3 x 3 nearest grid points makes the cost linear in the number of pixels.
    """
    gu, gv = u / np.float32(size_m[0]), v / np.float32(size_m[1])
    u0, v0 = int(np.floor(gu.min())) - 1, int(np.floor(gv.min())) - 1
    nu, nv = int(np.floor(gu.max())) - u0 + 2, int(np.floor(gv.max())) - v0 + 2
    offsets = rng.uniform(-jitter, jitter, (2, nv, nu)).astype(np.float32) + np.float32(0.5)
    grid_u = (offsets[0] + np.arange(u0, u0 + nu, dtype=np.float32)).ravel()
    grid_v = (offsets[1] + np.arange(v0, v0 + nv, dtype=np.float32)[:, None]).ravel()
    base = (np.floor(gv).astype(np.int32) - v0) * nu + (np.floor(gu).astype(np.int32) - u0)
    best = np.full(u.shape, np.inf, dtype=np.float32)
    second = best.copy()
    index = np.zeros(u.shape, dtype=np.int32)
    for shift in (dv * nu + du for dv in (-1, 0, 1) for du in (-1, 0, 1)):
        candidate = base + np.int32(shift)
        distance = (gu - grid_u[candidate]) ** 2 + (gv - grid_v[candidate]) ** 2
        closer = distance < best
        np.minimum(second, np.maximum(best, distance), out=second)
        np.minimum(best, distance, out=best)
        np.copyto(index, candidate, where=closer)
    return Cells(
        index,
        np.sqrt(best),
        np.sqrt(second),
        grid_u[index] * np.float32(size_m[0]),
        grid_v[index] * np.float32(size_m[1]),
        nu * nv,
    )
