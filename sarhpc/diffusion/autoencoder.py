"""The autoencoder stage: an f8 AutoencoderKL for optical and SAR tiles that keeps speckle.

The loss of optical crops compares pixels. The loss of SAR crops compares their local mean and the
statistics of their speckle (histogram, spectrum, autocorrelation, a patch discriminator), because a
decoder trained on squared error reproduces an unpredictable texture as its mean: blur.

All random choices of step n depend on (seed, n) only, so a resumed training equals an uninterrupted
one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from hpc.errors import DataError, NumericalError
from hpc.publish import publishing
from sarhpc.diffusion import texture
from sarhpc.diffusion.config import AutoencoderConfig, AutoencoderShape, TextureWeights
from sarhpc.diffusion.crops import TilePool
from sarhpc.diffusion.discriminator import PatchDiscriminator, discriminator_loss, generator_loss
from sarhpc.diffusion.unblocked_sampling import without_waiting

Log = Callable[[str], None]


def new_autoencoder(shape: AutoencoderShape, seed: int) -> AutoencoderKL:
    """An untrained AutoencoderKL of `shape`, the same for the same seed."""
    levels = len(shape.block_out_channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoencoderKL(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=tuple(shape.block_out_channels),
            layers_per_block=shape.layers_per_block,
            norm_num_groups=shape.norm_groups,
            sample_size=shape.sample_size,
            mid_block_add_attention=shape.mid_attention,
        )
    # Three latent channels start almost noiseless, for the image content; the fourth starts as unit
    # noise, which the decoder can use for its speckle.
    with torch.no_grad():
        model.quant_conv.bias[4:7] = -4.0
    return model


@dataclass
class TrainingState:
    """Everything that an autoencoder training carries from one step to the next."""

    model: AutoencoderKL
    average: AutoencoderKL
    discriminator: PatchDiscriminator
    optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer
    step: int = 0

    @classmethod
    def new(cls, cfg: AutoencoderConfig) -> TrainingState:
        """The state before the first step."""
        model, average = (new_autoencoder(cfg.shape, cfg.seed) for _ in range(2))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(cfg.seed + 1)
            discriminator = PatchDiscriminator()
        average.requires_grad_(False)
        return cls(
            model,
            average,
            discriminator,
            torch.optim.Adam(model.parameters(), cfg.learning_rate, (0.9, 0.99)),
            torch.optim.Adam(discriminator.parameters(), cfg.discriminator_rate, (0.5, 0.99)),
        )

    def save(self, path: Path) -> None:
        """Publish the state as one file."""
        parts = {name: getattr(self, name).state_dict() for name in _PARTS}
        with publishing(path) as file:
            torch.save({**parts, "step": self.step}, file)

    def load(self, path: Path) -> None:
        """Restore the state in `path`.

        Raises:
            DataError: the file is damaged or belongs to another shape.
        """
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            for name in _PARTS:
                getattr(self, name).load_state_dict(saved[name])
            self.step = int(saved["step"])
        except (OSError, RuntimeError, KeyError, EOFError, ValueError) as error:
            raise DataError(
                f"autoencoder state {path} cannot be loaded ({error}); "
                "remove it to start again, or give the configuration it was trained with"
            ) from error


_PARTS = ("model", "average", "discriminator", "optimizer", "discriminator_optimizer")


def reconstruction_terms(
    images: Tensor, decoded: Tensor, weights: TextureWeights, ramp: float = 1.0
) -> dict[str, Tensor]:
    """Weighted terms of the loss of `decoded` against `images` (B, 3, H, W), first half optical.

    `ramp` in [0, 1] scales the terms on texture.
    """
    half = len(images) // 2
    optical, optical_out = images[:half], decoded[:half].float()
    luminance = optical.mean(1, keepdim=True), optical_out.mean(1, keepdim=True)
    optical_blocks = functional.avg_pool2d(optical_out - optical, 8)
    return {
        "optical_pixel": weights.optical_pixel * texture.charbonnier(optical_out - optical),
        "optical_lowpass": weights.optical_lowpass * texture.charbonnier(optical_blocks),
        "optical_spectrum": ramp * weights.optical_spectrum * texture.spectral_distance(*luminance),
        **sar_terms(images[half:], decoded[half:].float(), weights, ramp),
    }


def sar_terms(
    sar: Tensor, sar_out: Tensor, weights: TextureWeights, ramp: float = 1.0
) -> dict[str, Tensor]:
    """Weighted terms of the loss of reconstructions `sar_out` of SAR images `sar` (B, 3, H, W).

    `ramp` in [0, 1] scales the terms on texture.
    """
    amplitudes = texture.amplitude(sar), texture.amplitude(sar_out)
    level = texture.local_level(amplitudes[0])
    logs = texture.log_amplitude(amplitudes[0], level), texture.log_amplitude(amplitudes[1], level)
    sar_blocks = functional.avg_pool2d(sar_out - sar, 8)
    spread = sar_out - sar_out.mean(1, keepdim=True)
    return {
        "sar_pixel": weights.sar_pixel * texture.charbonnier(sar_out - sar),
        "sar_lowpass": weights.sar_lowpass * texture.charbonnier(sar_blocks),
        "histogram": ramp * weights.histogram * texture.histogram_distance(*logs),
        "increments": ramp * weights.increments * texture.increment_distance(*logs),
        "spectrum": ramp * weights.spectrum * texture.spectral_distance(*logs),
        "autocorrelation": ramp
        * weights.autocorrelation
        * texture.autocorrelation_distance(*amplitudes),
        "colour": weights.colour * texture.charbonnier(spread),
    }


def train_step(state: TrainingState, images: Tensor, cfg: AutoencoderConfig) -> dict[str, float]:
    """One step on `images` (B, 3, H, W); the value of each weighted term of the loss.

    Raises:
        NumericalError: the loss is not finite; the state is as before the step.
    """
    _set_rate(state, cfg)
    _freeze_encoder(state, cfg)
    generator = torch.Generator().manual_seed(cfg.seed * 1_000_003 + state.step)
    adversarial = state.step >= cfg.discriminator_start
    with torch.autocast("cpu", torch.bfloat16, enabled=cfg.bfloat16):
        posterior = state.model.encode(images).latent_dist
        decoded = state.model.decode(posterior.sample(generator)).sample
        scores = _frozen_scores(state.discriminator, decoded) if adversarial else None
    ramp = (state.step - cfg.texture_start) / max(cfg.texture_ramp, 1)
    terms = reconstruction_terms(images, decoded, cfg.weights, min(max(ramp, 0.0), 1.0))
    terms["kl"] = cfg.weights.kl * posterior.kl().float().mean() / posterior.mean[0].numel()
    if scores is not None:
        terms["adversarial"] = cfg.weights.adversarial * generator_loss(scores.float())
    loss = torch.stack(list(terms.values())).sum()
    if not bool(torch.isfinite(loss)):
        values = {name: float(term.detach()) for name, term in terms.items()}
        raise NumericalError(
            f"loss of the autoencoder is not finite at step {state.step}: {values}; "
            "lower learning_rate and resume from the last checkpoint"
        )
    _descend(state.optimizer, loss, state.model)
    if adversarial:
        _train_discriminator(state, images, decoded.detach(), cfg)
    _update_average(state.average, state.model, min(cfg.ema, (1 + state.step) / (10 + state.step)))
    state.step += 1
    return {name: float(term.detach()) for name, term in terms.items()}


def _set_rate(state: TrainingState, cfg: AutoencoderConfig) -> None:
    progress = min(state.step / max(cfg.steps, 1), 1.0)
    cosine = 0.05 + 0.95 * (1 + math.cos(math.pi * progress)) / 2
    factor = min(1.0, (state.step + 1) / max(cfg.warmup, 1)) * cosine
    for group in state.optimizer.param_groups:
        group["lr"] = cfg.learning_rate * factor


def _freeze_encoder(state: TrainingState, cfg: AutoencoderConfig) -> None:
    """Freeze the averaged encoder from `encoder_steps` on, where only the decoder is trained.

    Latents are then final: a noise predictor can be trained on them while the decoder improves.
    """
    frozen = cfg.encoder_steps is not None and state.step >= cfg.encoder_steps
    for name in ("encoder", "quant_conv"):
        part = getattr(state.model, name)
        if state.step == cfg.encoder_steps:
            part.load_state_dict(getattr(state.average, name).state_dict())
        part.requires_grad_(not frozen)


def _frozen_scores(discriminator: PatchDiscriminator, images: Tensor) -> Tensor:
    """Scores whose gradient reaches the images only; the power iteration is not updated."""
    discriminator.eval().requires_grad_(False)
    scores: Tensor = discriminator(images)
    discriminator.train().requires_grad_(True)
    return scores


def _train_discriminator(
    state: TrainingState, real: Tensor, fake: Tensor, cfg: AutoencoderConfig
) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=cfg.bfloat16):
        real_scores, fake_scores = state.discriminator(torch.cat([real, fake])).chunk(2)
    loss = discriminator_loss(real_scores.float(), fake_scores.float())
    _descend(state.discriminator_optimizer, loss, state.discriminator)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor, model: nn.Module) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    pairs = zip(average.parameters(), model.parameters(), strict=True)
    for slow, fast in pairs:
        slow.lerp_(fast, 1 - decay)


def crop_size(cfg: AutoencoderConfig, step: int) -> int:
    """Side of the crops of `step`, px: small ones first, whole tiles at the end."""
    final = step >= cfg.steps * (1 - cfg.final_fraction)
    return cfg.final_crop_px if final else cfg.crop_px


def train_autoencoder(
    cfg: AutoencoderConfig,
    pool: TilePool,
    folder: Path,
    *,
    log: Log = print,
    until: int | None = None,
    observe: Callable[[TrainingState], Mapping[str, Any]] | None = None,
) -> TrainingState:
    """The trained state, resumed from `folder/state.pt` if it exists.

    `observe` is called with the state at every checkpoint and its result is logged; `until` stops
    early, for a training in several parts.

    Raises:
        NumericalError: the loss is not finite.
        DataError: the checkpoint is damaged, or an image is smaller than a crop.
    """
    state = TrainingState.new(cfg)
    checkpoint = folder / "state.pt"
    if checkpoint.exists():
        state.load(checkpoint)
    last = cfg.steps if until is None else min(until, cfg.steps)
    started = time.monotonic()
    while state.step < last:
        images = pool.batch(cfg.seed, state.step, cfg.batch, crop_size(cfg, state.step))
        terms = train_step(state, images, cfg)
        if state.step % cfg.log_every == 0:
            elapsed = time.monotonic() - started
            log(f"step={state.step} elapsed_s={elapsed:.0f} {_line(terms)}")
        if state.step % cfg.save_every == 0 or state.step == last:
            state.save(checkpoint)
            if observe is not None:
                log(f"step={state.step} {_line(observe(state))}")
    return state


def _line(values: Mapping[str, Any]) -> str:
    shown = {k: f"{v:.4f}" if isinstance(v, float) else v for k, v in values.items()}
    return " ".join(f"{key}={value}" for key, value in shown.items())


def drawn(posterior: Any, generator: torch.Generator) -> Tensor:
    """A latent (B, C, h, w) of each distribution, with noise from a generator of the CPU.

    As its own `sample`, which waits for a GPU at every draw.
    """
    mean: Tensor = posterior.mean
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
    return mean + posterior.std * without_waiting(noise, mean.device)


@torch.no_grad()
def reconstruct(model: AutoencoderKL, images: Tensor, seed: int = 0) -> Tensor:
    """Images (B, 3, H, W) decoded from one sample of each one's latent distribution, as trained.

    On the CPU, wherever `model` is.
    """
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    latents = drawn(model.encode(without_waiting(images, model.device)).latent_dist, generator)
    decoded: Tensor = model.decode(latents).sample
    return decoded.clamp(-1, 1).cpu()


@torch.no_grad()
def set_scaling_factor(model: AutoencoderKL, images: Tensor) -> float:
    """Set the model's scaling factor to 1 / std of the latents of `images`, and return it.

    The noise predictor then works on latents of unit variance, as in SD.
    """
    generator = torch.Generator().manual_seed(0)
    latents = model.encode(images).latent_dist.sample(generator)
    factor = float(1 / latents.std())
    model.register_to_config(scaling_factor=factor)
    return factor
