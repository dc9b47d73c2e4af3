"""Differentiable distances between speckle textures.

A latent of 16 x 16 x 4 numbers cannot hold the realisation of the speckle of 128 x 128 pixels; only
its statistics can survive. These terms compare statistics and leave the realisation free.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

FLOOR = 2 / 255
"""Amplitude added before the logarithm: two codes of an 8-bit tile, which bounds the slope."""


def log_amplitude(images: Tensor) -> Tensor:
    """ln(A + floor) (B, 1, H, W) of images (B, 3, H, W) in [-1, 1], A their channel mean in [0, 1].

    Below zero amplitude the logarithm goes on as a straight line, so that gradients stay alive.
    """
    amplitude = (images.float().mean(1, keepdim=True) + 1) / 2
    logarithm = torch.log(amplitude.clamp_min(0) + FLOOR)
    return logarithm + amplitude.clamp_max(0) / FLOOR


def charbonnier(difference: Tensor, scale: float = 0.02) -> Tensor:
    """Mean of a smooth absolute value; quadratic below `scale`."""
    return torch.mean(torch.sqrt(difference.float() ** 2 + scale**2) - scale)


def patches(images: Tensor, size: int, stride: int) -> Tensor:
    """Patches (B, N, size, size) of one-channel images (B, 1, H, W)."""
    windows = images[:, 0].unfold(1, size, stride).unfold(2, size, stride)
    return windows.flatten(1, 2)


def power_spectra(log_images: Tensor, size: int = 32) -> Tensor:
    """Hann-windowed power spectra (B, size, size//2+1), averaged over half-overlapping windows."""
    windows = patches(log_images, size, size // 2)
    taper = torch.hann_window(size, periodic=True, device=log_images.device)
    tapered = (windows - windows.mean((2, 3), keepdim=True)) * taper[:, None] * taper
    power = torch.fft.rfft2(tapered).abs() ** 2 / (taper.square().sum() ** 2)
    return power.mean(1)


def spectral_distance(real: Tensor, fake: Tensor) -> Tensor:
    """Mean |ln P - ln P'| of two sets of log images (B, 1, H, W), per image and over the batch.

    The term over the batch averages enough windows to see the single bins at k/8 cycles per pixel
    where the grid of the autoencoder shows.
    """
    p, q = power_spectra(real), power_spectra(fake)
    return _log_ratio(p, q) + _log_ratio(p.mean(0), q.mean(0))


def _log_ratio(p: Tensor, q: Tensor) -> Tensor:
    # Without a floor, an image still blurred has a slope so steep that nothing else is learnt.
    floor = 0.03 * p.mean((-2, -1), keepdim=True) + 1e-6
    return torch.mean(torch.abs(torch.log(p + floor) - torch.log(q + floor)))


def histogram_distance(real: Tensor, fake: Tensor, size: int = 16) -> Tensor:
    """Wasserstein-1 distance of log amplitude (nats) within each patch and within each image.

    Sorting makes it blind to where in the patch a value lies, so blurring speckle costs and
    drawing it anew does not.
    """
    local = patches(real, size, size), patches(fake, size, size)
    return _sorted_distance(*local) + _sorted_distance(real[:, None], fake[:, None])


def _sorted_distance(real: Tensor, fake: Tensor) -> Tensor:
    ordered = real.flatten(2).sort(-1).values - fake.flatten(2).sort(-1).values
    return ordered.abs().mean()


def autocorrelation(log_images: Tensor, box: int = 9, lags: int = 5) -> Tensor:
    """Speckle autocorrelation (B, 2, lags) along azimuth (rows) and range (columns).

    Of r = I / localmean(I) - 1, I the intensity, as in the speckle method of Vachon and Raney
    (1989), at lags of 1 to `lags` pixels.
    """
    intensity = torch.exp(2 * log_images).clamp_max(4.0)
    local = functional.avg_pool2d(intensity, box, 1, box // 2, count_include_pad=False)
    r = intensity / local - 1
    variance = r.square().mean((1, 2, 3)) + 1e-6
    along_rows = [(r[:, :, k:] * r[:, :, :-k]).mean((1, 2, 3)) for k in range(1, lags + 1)]
    along_columns = [(r[..., k:] * r[..., :-k]).mean((1, 2, 3)) for k in range(1, lags + 1)]
    both = torch.stack([torch.stack(along_rows, 1), torch.stack(along_columns, 1)], 1)
    return both / variance[:, None, None]


def autocorrelation_distance(real: Tensor, fake: Tensor) -> Tensor:
    """Mean absolute difference of the speckle autocorrelations of two sets of log images."""
    return torch.mean(torch.abs(autocorrelation(real) - autocorrelation(fake)))
