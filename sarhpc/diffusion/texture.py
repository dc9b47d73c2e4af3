"""Differentiable distances between speckle textures.

A latent of 16 x 16 x 4 numbers cannot represent the speckle realisation of 128 x 128 pixels, only
its statistics. These terms compare statistics and leave the realisation free.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST_LEVEL = 4 / 255
"""Mean amplitude below which a patch counts as black in 8 bits."""


def amplitude(images: Tensor) -> Tensor:
    """Amplitude (B, 1, H, W) in [0, 1] of images (B, 3, H, W) in [-1, 1], the mean of the channels.

    Values outside are clipped, as they will be in 8 bits, but keep their gradient: a decoder can
    neither hide texture below zero nor get stuck there.
    """
    exact = (images.float().mean(1, keepdim=True) + 1) / 2
    return exact.detach().clamp(0, 1) + (exact - exact.detach())


def local_level(amplitudes: Tensor, box: int = 15) -> Tensor:
    """Mean amplitude (B, 1, H, W) around every pixel, without gradient."""
    padded = functional.avg_pool2d(amplitudes.detach(), box, 1, box // 2, count_include_pad=False)
    return padded.clamp_min(SMALLEST_LEVEL)


def log_amplitude(amplitudes: Tensor, level: Tensor) -> Tensor:
    """ln(A + level/10) (B, 1, H, W), `level` the local mean of the real image for both images.

    The offset of a tenth of the level weights dark and bright ground equally and bounds the slope;
    with a fixed small offset the easiest way to gain contrast is a black image.
    """
    return torch.log(amplitudes + 0.1 * level)


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

    The term over the batch averages enough windows to resolve the bins at k/8 cycles per pixel that
    contain the grid artefacts of the autoencoder.
    """
    p, q = power_spectra(real), power_spectra(fake)
    return _log_ratio(p, q) + _log_ratio(p.mean(0), q.mean(0))


def _log_ratio(p: Tensor, q: Tensor) -> Tensor:
    # Without a floor, a blurred image has a gradient so steep that no other term is learned.
    floor = 0.03 * p.mean((-2, -1), keepdim=True) + 1e-6
    return torch.mean(torch.abs(torch.log(p + floor) - torch.log(q + floor)))


def histogram_distance(real: Tensor, fake: Tensor) -> Tensor:
    """Wasserstein-1 distance of log amplitude (nats), summed over patches of 4, 16 px and all.

    Sorting makes it independent of where in the patch a value is, so that blurred speckle is
    penalised and another realisation is not. Small patches penalise isolated bright dots.
    """
    local = [_sorted_distance(patches(real, n, n), patches(fake, n, n)) for n in (4, 16)]
    return torch.stack(local).sum() + _sorted_distance(real, fake)


def increment_distance(real: Tensor, fake: Tensor, size: int = 16) -> Tensor:
    """Wasserstein-1 distance of the differences of neighbours in log amplitude (nats) per patch.

    Mean over neighbours along range, along azimuth and along the diagonal.
    """
    total = torch.zeros(())
    for rows, cols in ((0, 1), (1, 0), (1, 1)):
        steps = [_increments(image, rows, cols) for image in (real, fake)]
        total = total + _sorted_distance(*(patches(step, size, size - 1) for step in steps))
    return total / 3


def _increments(image: Tensor, rows: int, cols: int) -> Tensor:
    height, width = image.shape[-2:]
    return image[..., rows:, cols:] - image[..., : height - rows, : width - cols]


def _sorted_distance(real: Tensor, fake: Tensor) -> Tensor:
    ordered = real.flatten(2).sort(-1).values - fake.flatten(2).sort(-1).values
    return ordered.abs().mean()


def autocorrelation(amplitudes: Tensor, box: int = 9, lags: int = 5) -> Tensor:
    """Speckle autocorrelation (B, 2, lags) along azimuth (rows) and range (columns).

    Of r = I / localmean(I) - 1, I the intensity, as in the speckle method of Vachon and Raney
    (1989), at lags of 1 to `lags` pixels.
    """
    intensity = amplitudes**2
    local = functional.avg_pool2d(intensity, box, 1, box // 2, count_include_pad=False)
    r = intensity / (local + 1e-5) - 1
    variance = r.square().mean((1, 2, 3)) + 1e-2
    along_rows = [(r[:, :, k:] * r[:, :, :-k]).mean((1, 2, 3)) for k in range(1, lags + 1)]
    along_columns = [(r[..., k:] * r[..., :-k]).mean((1, 2, 3)) for k in range(1, lags + 1)]
    both = torch.stack([torch.stack(along_rows, 1), torch.stack(along_columns, 1)], 1)
    return both / variance[:, None, None]


def autocorrelation_distance(real: Tensor, fake: Tensor) -> Tensor:
    """Mean absolute difference of the speckle autocorrelations of two sets of amplitudes."""
    return torch.mean(torch.abs(autocorrelation(real) - autocorrelation(fake)))
