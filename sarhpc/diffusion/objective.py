"""The loss of the noise predictor, with random choices seeded per sample.

Noise, timestep, latent sample and caption dropout of a sample in an epoch depend on (seed, epoch,
sample id) only, so the loss depends neither on the world size nor on how samples are batched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from hpc.errors import ConfigError
from sarhpc.diffusion.config import ObjectiveConfig


@dataclass(frozen=True)
class Draw:
    """The random choices of a batch of B samples."""

    timesteps: Tensor
    """Steps of the forward process (B,), int64."""
    noise: Tensor
    """Noise to add (B, C, h, w), float32."""
    latent_noise: Tensor
    """Unit Gaussian (B, C, h, w) for the sample of the posterior: mean + std * this."""
    dropped: tuple[bool, ...]
    """Whether the sample is trained without its caption."""


def draw(
    sample_ids: Sequence[str],
    *,
    seed: int,
    epoch: int,
    shape: tuple[int, int, int],
    cfg: ObjectiveConfig,
    train_timesteps: int = 1000,
) -> Draw:
    """The random choices for `sample_ids` in `epoch`; `shape` is that of one latent (C, h, w)."""
    each = [_draw_one(name, seed, epoch, shape, cfg, train_timesteps) for name in sample_ids]
    return Draw(
        timesteps=torch.tensor([one[0] for one in each], dtype=torch.int64),
        noise=torch.stack([one[1] for one in each]),
        latent_noise=torch.stack([one[2] for one in each]),
        dropped=tuple(one[3] for one in each),
    )


def _draw_one(
    name: str,
    seed: int,
    epoch: int,
    shape: tuple[int, int, int],
    cfg: ObjectiveConfig,
    train_timesteps: int,
) -> tuple[int, Tensor, Tensor, bool]:
    generator = torch.Generator().manual_seed(sample_seed(seed, epoch, name))
    timestep = int(torch.randint(train_timesteps, (), generator=generator))
    dropped = bool(torch.rand((), generator=generator) < cfg.caption_dropout)
    noise = torch.randn(shape, generator=generator)
    latent_noise = torch.randn(shape, generator=generator)
    if cfg.noise_offset:
        noise = noise + cfg.noise_offset * torch.randn((shape[0], 1, 1), generator=generator)
    return timestep, noise, latent_noise, dropped


def sample_seed(seed: int, epoch: int, name: str) -> int:
    """Seed of a sample in an epoch: 63 bits of SHA-256, so that similar inputs are unrelated."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def with_dropout(captions: Sequence[str], dropped: Sequence[bool]) -> list[str]:
    """The captions, those dropped replaced by the empty prompt."""
    pairs = zip(captions, dropped, strict=True)
    return ["" if drop else caption for caption, drop in pairs]


def signal_and_noise(scheduler: SchedulerMixin, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(alpha_bar) and sqrt(1 - alpha_bar) of the timesteps, float32 (B, 1, 1, 1)."""
    cumulative = scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float()
    alpha_bar = cumulative[:, None, None, None]
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def add_noise(scheduler: SchedulerMixin, latents: Tensor, draw: Draw) -> Tensor:
    """Noisy latents a*x + s*eps, computed in float32 and returned in the latents' type."""
    signal, sigma = signal_and_noise(scheduler, draw.timesteps.to(latents.device))
    noise = draw.noise.to(latents.device)
    return (signal * latents.float() + sigma * noise).to(latents.dtype)


def target(scheduler: SchedulerMixin, latents: Tensor, draw: Draw) -> Tensor:
    """The target of the prediction, float32: the noise, or v = a*eps - s*x.

    v of Salimans and Ho (2022), according to the scheduler's `prediction_type`.
    """
    noise = draw.noise.to(latents.device)
    kind = prediction_type(scheduler)
    if kind == "epsilon":
        return noise
    signal, sigma = signal_and_noise(scheduler, draw.timesteps.to(latents.device))
    return signal * noise - sigma * latents.float()


def prediction_type(scheduler: SchedulerMixin) -> str:
    """`epsilon` or `v_prediction`.

    Raises:
        ConfigError: the scheduler has another one.
    """
    kind = str(scheduler.config.get("prediction_type", "epsilon"))
    if kind not in ("epsilon", "v_prediction"):
        raise ConfigError(f"prediction_type {kind!r} is not supported; use epsilon or v_prediction")
    return kind


def min_snr_weights(scheduler: SchedulerMixin, timesteps: Tensor, gamma: float) -> Tensor:
    """Weights (B,) of min-SNR-gamma, Hang et al. (2023), for the scheduler's prediction type.

    min(SNR, gamma)/SNR for epsilon and min(SNR, gamma)/(SNR + 1) for v: both weight the error of x
    equally. At zero SNR, where the weight of epsilon is 0/0, its limit 1 is used.
    """
    cumulative = scheduler.alphas_cumprod.to(timesteps.device)[timesteps].double()
    snr = cumulative / (1 - cumulative)
    clipped = snr.clamp(max=gamma)
    if prediction_type(scheduler) == "v_prediction":
        return (clipped / (snr + 1)).float()
    return torch.where(snr > 0, clipped / snr.clamp_min(1e-20), 1.0).float()


def loss_per_sample(
    scheduler: SchedulerMixin,
    prediction: Tensor,
    latents: Tensor,
    draw: Draw,
    cfg: ObjectiveConfig,
) -> Tensor:
    """Weighted mean squared error of each sample (B,), float32; its mean is the loss."""
    squared = (prediction.float() - target(scheduler, latents, draw)) ** 2
    errors = squared.flatten(1).mean(1)
    if cfg.min_snr_gamma is None:
        return errors
    timesteps = draw.timesteps.to(latents.device)
    return errors * min_snr_weights(scheduler, timesteps, cfg.min_snr_gamma)
