"""Fine-tuning an autoencoder's decoder for speckle, with a report of its fidelity before and after.

The published autoencoders were trained on photographs and blur speckle. The encoder is frozen, so
latents and any noise predictor trained on them stay valid; the decoder learns to reproduce speckle
of the right statistics around the right local mean.

All random choices of step n depend on (seed, n) only, so a resumed tuning equals an uninterrupted
one.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from hpc.errors import ConfigError, DataError, NumericalError
from hpc.publish import publishing
from sarhpc.diffusion.autoencoder import Log, drawn, reconstruct, sar_terms
from sarhpc.diffusion.config import DecoderConfig
from sarhpc.diffusion.crops import Images, as_gray8, as_input, sar_batch, sar_crops
from sarhpc.diffusion.unblocked_sampling import without_waiting
from sarhpc.measures import autoencoder_fidelity as fidelity
from sarhpc.measures.nulls import Labels

_BATCH = 8


@dataclass
class DecoderTuning:
    """Everything that a tuning carries from one step to the next."""

    model: AutoencoderKL
    optimizer: torch.optim.Optimizer
    step: int = 0

    @classmethod
    def new(cls, cfg: DecoderConfig, base: AutoencoderKL) -> DecoderTuning:
        """The state before the first step, on a copy of `base` with all but its decoder frozen."""
        model = copy.deepcopy(base).requires_grad_(False)
        for part in _trained_parts(model):
            part.requires_grad_(True)
        learn = [p for p in model.parameters() if p.requires_grad]
        return cls(model, torch.optim.AdamW(learn, cfg.learning_rate, (0.9, 0.99)))

    def save(self, path: Path, of: str) -> None:
        """Publish the state as one file; `of` identifies the base and the configuration."""
        parts = {name: part.state_dict() for name, part in _named(self.model).items()}
        with publishing(path) as file:
            torch.save(
                {**parts, "optimizer": self.optimizer.state_dict(), "step": self.step, "of": of},
                file,
            )

    def load(self, path: Path, of: str) -> None:
        """Restore the state in `path`.

        Raises:
            ConfigError: it is of another base or another configuration.
            DataError: the file is damaged.
        """
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError) as error:
            raise DataError(
                f"state {path} cannot be loaded ({error}); remove it to start again"
            ) from error
        if saved["of"] != of:
            raise ConfigError(
                f"{path} is of another base or another configuration; resume with those, or give "
                "another folder"
            )
        for name, part in _named(self.model).items():
            part.load_state_dict(saved[name])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step = int(saved["step"])


def _named(model: AutoencoderKL) -> dict[str, nn.Module]:
    parts = {"decoder": model.decoder, "post_quant_conv": model.post_quant_conv}
    return {name: part for name, part in parts.items() if part is not None}


def _trained_parts(model: AutoencoderKL) -> list[nn.Module]:
    return list(_named(model).values())


def tuning_step(state: DecoderTuning, images: Tensor, cfg: DecoderConfig) -> dict[str, float]:
    """One step on SAR crops (B, 3, H, W) in [-1, 1]; the value of each weighted term of the loss.

    Raises:
        NumericalError: the loss is not finite; the state is as before the step.
    """
    for group in state.optimizer.param_groups:
        group["lr"] = cfg.learning_rate * _rate_factor(cfg, state.step)
    generator = torch.Generator().manual_seed(cfg.seed * 1_000_003 + state.step)
    images = without_waiting(images, state.model.device)
    with torch.no_grad():
        latents = drawn(state.model.encode(images).latent_dist, generator)
    terms = sar_terms(images, state.model.decode(latents).sample, cfg.weights)
    each = torch.stack(list(terms.values()))
    loss = each.sum()
    # Read together: a GPU is waited for at every number.
    *values, total = torch.cat([each.detach(), loss.detach()[None]]).tolist()
    if not math.isfinite(total):
        raise NumericalError(
            f"loss of the decoder is not finite at step {state.step}; lower learning_rate and "
            "resume from the last checkpoint"
        )
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    learn = [p for group in state.optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(learn, 1.0)
    state.optimizer.step()
    state.step += 1
    return dict(zip(terms, values, strict=True))


def _rate_factor(cfg: DecoderConfig, step: int) -> float:
    cosine = 0.05 + 0.95 * (1 + math.cos(math.pi * min(step / max(cfg.steps, 1), 1.0))) / 2
    return min(1.0, (step + 1) / max(cfg.warmup, 1)) * cosine


def tune_decoder(
    cfg: DecoderConfig,
    base: AutoencoderKL,
    tiles: Images,
    checkpoint: Path,
    *,
    log: Log = print,
    until: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> AutoencoderKL:
    """A copy of `base` with its decoder tuned on SAR `tiles` (H, W) in 8 bits.

    Resumes from `checkpoint` if it exists, and leaves it there; `until` and `stop` end early.

    Raises:
        NumericalError: the loss is not finite.
        ConfigError: the checkpoint is of another base or configuration.
        DataError: the checkpoint is damaged, or a tile is smaller than a crop.
    """
    state, of = DecoderTuning.new(cfg, base), _identity(cfg, base)
    if checkpoint.exists():
        state.load(checkpoint, of)
    last = cfg.steps if until is None else min(until, cfg.steps)
    while state.step < last and not stop():
        images = sar_batch(tiles, cfg.seed, state.step, cfg.batch, cfg.crop_px)
        terms = tuning_step(state, images, cfg)
        if state.step % cfg.log_every == 0:
            shown = " ".join(f"{name}={value:.4f}" for name, value in terms.items())
            log(f"step={state.step} of={cfg.steps} {shown}")
        if state.step % cfg.save_every == 0:
            state.save(checkpoint, of)
    state.save(checkpoint, of)
    return state.model.eval()


def _identity(cfg: DecoderConfig, base: AutoencoderKL) -> str:
    intervals = ("save_every", "log_every")
    decisive = {name: value for name, value in asdict(cfg).items() if name not in intervals}
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode())
    for name, tensor in sorted(base.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def reconstructions(model: AutoencoderKL, crops: Images) -> Images:
    """8-bit SAR crops (H, W) encoded and decoded, always with the same noise."""
    batches = [
        reconstruct(model, torch.stack([as_input(crop) for crop in crops[at : at + _BATCH]]), at)
        for at in range(0, len(crops), _BATCH)
    ]
    return [as_gray8(image) for image in torch.cat(batches)]


def decoder_report(
    cfg: DecoderConfig,
    before: AutoencoderKL,
    after: AutoencoderKL,
    held_out: Images,
    groups: Labels,
) -> tuple[dict[str, Any], tuple[Images, Images, Images]]:
    """E1, E3, E4 and E5 of held-out tiles reconstructed by each autoencoder, and the crops used.

    `before` and `after` have the distances of the crops to their own reconstructions, and `nulls`
    how either stands in the distances between real crops of different groups. The crops are the
    real ones, their reconstructions by `before` and those by `after`.

    Args:
        cfg: crops of the report.
        before: the autoencoder that was tuned.
        after: the tuned one.
        held_out: SAR tiles (H, W) in 8 bits.
        groups: flight line or else scene of each.

    Raises:
        DataError: a crop or a reconstruction is constant, or smaller than 32 px.
    """
    drawn = sar_crops(held_out, cfg.report_crops, cfg.crop_px)
    crops, of = drawn.crops, [groups[source] for source in drawn.sources]
    decoded = {"before": reconstructions(before, crops), "after": reconstructions(after, crops)}
    try:
        compared = {name: fidelity.compare(crops, fake) for name, fake in decoded.items()}
        nulls = {name: fidelity.against_nulls(crops, fake, of) for name, fake in decoded.items()}
    except ValueError as error:
        raise DataError(f"held-out crops or reconstructions cannot be measured: {error}") from error
    facts = {"nulls": nulls, "crops": len(crops), "crop_px": cfg.crop_px}
    return {**compared, **facts}, (crops, decoded["before"], decoded["after"])
