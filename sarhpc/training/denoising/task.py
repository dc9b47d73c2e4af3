"""Denoising as a training task: encode, draw, predict, compare with the noise; sample grids."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpc.job.agreement import RankGroup
from sarhpc.diffusion.conditioning import size_ids, tokenize, tokens_cut
from sarhpc.diffusion.config import ObjectiveConfig
from sarhpc.diffusion.dylora import DynamicRanks, draw_ranks
from sarhpc.diffusion.objective import Draw, add_noise, draw, loss_per_sample, with_dropout
from sarhpc.shards.loader import Cursor
from sarhpc.shards.transfer import to_device
from sarhpc.training.checkpoints.checkpointing import preserved_random_state
from sarhpc.training.config import LoopConfig, TrainConfig
from sarhpc.training.config_checks import check
from sarhpc.training.context import TrainContext
from sarhpc.training.denoising.data import Samples, TileBatch, joined
from sarhpc.training.denoising.latents import LatentEncoder, StoredLatents, autoencoder_digest
from sarhpc.training.denoising.model import Denoiser, prepare
from sarhpc.training.denoising.prior import feed_with_prior
from sarhpc.training.denoising.start import load_base
from sarhpc.training.denoising.validation import Grids, Judge
from sarhpc.training.metrics.log import StepClock
from sarhpc.training.metrics.utilisation import Utilisation, utilisation
from sarhpc.training.schedule import length, rate_scale
from sarhpc.training.state import FitResult
from sarhpc.training.task import TrainTask, Weights
from sarhpc.training.trainer import fit

_log = logging.getLogger(__name__)


def train(
    cfg: TrainConfig,
    base: Path,
    samples: Samples,
    ranks: RankGroup,
    ctx: TrainContext,
    *,
    latents: tuple[Path, ...] = (),
    judge: Judge | None = None,
) -> FitResult:
    """How the fine-tuning of bundle `base` on `samples` ended. Collective, raises as `fit`.

    Args:
        cfg: the training.
        base: a bundle's folder.
        samples: tiles with captions.
        ranks: this process among the others.
        ctx: what the run provides; grids go to the folder `validation` in its folder.
        latents: shards of latents encoded before; none encodes tiles as they come.
        judge: judges each validation grid, on rank 0; None judges none.
    """
    check(cfg)
    task = DenoisingTask(cfg, base, samples, ranks, ctx.folder, latents=latents, judge=judge)
    return fit(task.loop, task, ranks, ctx)


@dataclasses.dataclass(frozen=True)
class _Inputs:
    """What the pass over a micro-batch of B samples reads, on the device."""

    moments: Tensor
    """Mean and log-variance of the latents (B, 8, h, w)."""
    choices: Draw
    conditions: list[Tensor]
    """Token ids for each text encoder and, where the family has them, size ids."""
    layers: Tensor | None = None
    """What a ControlNet reads (B, 3, H, W)."""
    mask: Tensor | None = None
    """Factors on the directions of a dynamic adapter."""


class DenoisingTask(TrainTask[TileBatch]):
    """The fine-tuning of a diffusion model; what it does with a sample depends on nothing else."""

    name = "train"
    remedy = (
        "resume with train.on_nonfinite=skip or other limits in the run's config.yaml, or start a "
        "new run with a lower rate or fp32"
    )

    def __init__(
        self,
        cfg: TrainConfig,
        base: Path,
        samples: Samples,
        ranks: RankGroup,
        folder: Path,
        *,
        latents: tuple[Path, ...] = (),
        judge: Judge | None = None,
    ) -> None:
        """Load the base; arguments as of `train`, `folder` holds that of the grids."""
        extent = length(cfg, len(samples), ranks.world)
        self.loop = _loop_config(cfg, extent.steps)
        bundle = load_base(cfg, base)
        self.module: Denoiser = Denoiser(bundle.family, bundle.models)
        self.samples = len(samples)
        self._cfg, self._base, self._ranks, self._tiles = cfg, base, ranks, samples
        self._grids = Grids(cfg, base, extent, samples, ranks, folder / "validation", judge)
        self._objective = objective_config(cfg)
        self._encoder = LatentEncoder(bundle.vae, ranks.device, cache=cfg.cache_latents)
        self._stored = None
        if latents:
            digest = autoencoder_digest(bundle.vae)
            self._stored = StoredLatents(latents, digest, cfg.image_member)
        self._vae_scale = float(bundle.vae.config.scaling_factor)
        self._tokenizers, self._scheduler = bundle.tokenizers, bundle.scheduler
        # Read at every step, and copied there each time otherwise.
        self._scheduler.alphas_cumprod = self._scheduler.alphas_cumprod.to(ranks.device)
        self._has_size_ids = bundle.family.size_ids > 0
        self._dynamic = (
            DynamicRanks(bundle.models, cfg.adapter)
            if cfg.adapter is not None and cfg.adapter.kind == "dylora"
            else None
        )
        prior = 1.0 if cfg.prior is None else cfg.prior.weight
        self._weights = torch.tensor([1.0, prior], device=ranks.device)
        self._captions_cut = 0
        self._warned = False
        self._utilisation: Utilisation | None = None

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW over U-Net and text encoders."""
        return prepare(self._cfg, self.module, self._ranks.device)

    def feed(self, cursor: Cursor, step: int) -> Generator[tuple[Cursor, TileBatch]]:
        """Tiles, each batch with its regularisation images if there are any."""
        return feed_with_prior(
            self._cfg, self._tiles, cursor, step, self._ranks, self._stored, self._draw
        )

    def rate_scale(self, update: int) -> float:
        """Warm-up, then constant or cosine."""
        return rate_scale(self._cfg, update, self.loop.steps)

    def facts(self) -> Mapping[str, Any]:
        """Whether there is an average."""
        return {"average": self._cfg.ema_decay > 0}

    # Loss

    def losses(
        self, engine: Any, batch: TileBatch, clock: StepClock
    ) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
        """Yield the loss of each micro-batch: of its tiles, and of its regularisation images."""
        self._captions_cut = 0
        for tiles in batch.micro(self._cfg.micro_batch):
            micro = tiles.with_prior_beside()
            with clock.part("encode"):
                given = self._inputs(micro, count_cut=clock.exact)
                latents, choices = self._latents(given), given.choices
                noisy = add_noise(self._scheduler, latents, choices)
            if self._dynamic is not None and given.mask is not None:
                self._dynamic.set_mask(given.mask)
            with clock.part("forward"):
                steering = {} if given.layers is None else {"layer": given.layers}
                prediction = engine(noisy, choices.timesteps, *given.conditions, **steering)
                errors = loss_per_sample(
                    self._scheduler, prediction, latents, choices, self._objective
                )
                losses = self._means(errors, len(tiles.keys))
            names = ("loss",) if self._cfg.prior is None else ("loss", "prior_loss")
            yield (losses * self._weights).sum(), dict(zip(names, losses, strict=False))

    @staticmethod
    def _means(errors: Tensor, tiles: int) -> Tensor:
        """Mean errors (2,) of the first `tiles` samples and of the rest, 0 if there is none."""
        prior = errors[tiles:].mean() if len(errors) > tiles else torch.zeros_like(errors[0])
        return torch.stack([errors[:tiles].mean(), prior])

    def _inputs(self, batch: TileBatch, *, count_cut: bool) -> _Inputs:
        """What the pass over a micro-batch reads, on the device; copied there together."""
        known = self._encoder.known_moments(batch)
        choices = self._draw(batch) if batch.choices is None else batch.choices
        pictures = batch.images if known is None else known
        assert pictures is not None
        optional = {"layers": batch.layers, "mask": self._mask(batch)}
        further = {name: tensor for name, tensor in optional.items() if tensor is not None}
        conditions = self._conditions(batch, choices, count_cut=count_cut)
        pictures, latent_noise, noise, timesteps, *rest = to_device(
            [
                *(pictures, choices.latent_noise, choices.noise, choices.timesteps),
                *conditions,
                *further.values(),
            ],
            self._ranks.device,
        )
        on_device = dataclasses.replace(
            choices, timesteps=timesteps, noise=noise, latent_noise=latent_noise
        )
        return _Inputs(
            self._encoder.encode(pictures) if known is None else pictures,
            on_device,
            rest[: len(conditions)],
            **dict(zip(further, rest[len(conditions) :], strict=True)),
        )

    def _draw(self, batch: TileBatch) -> Draw:
        """The random choices of a batch, on the CPU."""
        height, width = (side // self._encoder.reduction for side in self._size(batch))
        return draw_batch(
            batch,
            seed=self._cfg.seed,
            shape=(self._encoder.latent_channels, height, width),
            cfg=self._objective,
            timesteps=int(self._scheduler.config.num_train_timesteps),
        )

    def _size(self, batch: TileBatch) -> tuple[int, int]:
        """Height and width of the images of a batch, px, which may be there as latents only."""
        if batch.images is not None:
            height, width = batch.images.shape[2:]
            return int(height), int(width)
        assert batch.moments is not None
        height, width = (side * self._encoder.reduction for side in batch.moments.shape[2:])
        return height, width

    def _latents(self, given: _Inputs) -> Tensor:
        """Scaled latents (B, 4, h, w) from the autoencoder's posterior."""
        mean, logvar = given.moments.chunk(2, dim=1)
        deviation = torch.exp(0.5 * logvar)
        sampled = mean + deviation * given.choices.latent_noise
        return sampled * self._vae_scale

    def _mask(self, batch: TileBatch) -> Tensor | None:
        """Which directions of the adapter each sample uses, drawn if it is dynamic (DyLoRA)."""
        if self._dynamic is None or self._cfg.adapter is None:
            return None
        drawn = draw_ranks(self._cfg.adapter, batch.keys, batch.epochs, self._cfg.seed)
        return self._dynamic.mask(drawn)

    def _conditions(self, batch: TileBatch, choices: Draw, *, count_cut: bool) -> list[Tensor]:
        """Token ids (B, L) for each text encoder and, where the family has them, size ids."""
        captions = with_dropout(batch.captions, choices.dropped)
        if count_cut:
            self._captions_cut += sum(cut > 0 for cut in tokens_cut(self._tokenizers[0], captions))
        found = [tokenize(tokenizer, captions) for tokenizer in self._tokenizers]
        return (
            [*found, size_ids(len(batch.keys), *self._size(batch))] if self._has_size_ids else found
        )

    # Metrics

    def metrics(
        self, step: int, batch: TileBatch, rates: Mapping[str, float], seconds: float
    ) -> Mapping[str, Any]:
        """Rates by group, captions of rank 0 that were truncated, and arithmetic per second."""
        cut = self._captions_cut
        if cut and not self._warned:
            self._warned = True
            _log.warning(
                "step=%d captions_cut=%d: the text encoder reads 75 tokens of a caption and no "
                "more; metrics.jsonl counts such captions, shorten them", step, cut,
            )  # fmt: skip
        if self._utilisation is None:
            with preserved_random_state():
                px = self._size(batch)[1]
                self._utilisation = utilisation(self._cfg, self._base, px, self._ranks)
        row = {**super().metrics(step, batch, rates, seconds)}
        row |= {"captions_cut": cut} if cut else {}
        return row | self._utilisation.row(seconds)

    # Validation

    def is_validation_due(self, step: int) -> bool:
        """Whether a grid of images is due and not there yet."""
        return self._grids.is_due(step)

    def needs_checkpoint(self, step: int) -> bool:
        """Whether a grid of this step is judged."""
        return self._grids.is_judged(step)

    def validate(self, step: int, weights: Weights) -> Iterator[None]:
        """Sample the images of the grid; no rows: the grid's index has what was judged."""
        return self._grids.sample(step, weights)


def _loop_config(cfg: TrainConfig, steps: int) -> LoopConfig:
    """The part of `cfg` that the trainer needs."""
    given = {field.name for field in dataclasses.fields(TrainConfig)}
    names = given & {field.name for field in dataclasses.fields(LoopConfig)}
    same: dict[str, Any] = {name: getattr(cfg, name) for name in names}
    return LoopConfig(steps=steps, **same)


def objective_config(cfg: TrainConfig) -> ObjectiveConfig:
    """The objective's part of a training configuration."""
    return ObjectiveConfig(cfg.caption_dropout, cfg.min_snr_gamma, cfg.noise_offset)


def draw_batch(
    batch: TileBatch,
    *,
    seed: int,
    shape: tuple[int, int, int],
    cfg: ObjectiveConfig,
    timesteps: int,
) -> Draw:
    """The random choices of a batch, whose samples may lie in two epochs."""
    each = [
        draw([key], seed=seed, epoch=epoch, shape=shape, cfg=cfg, train_timesteps=timesteps)
        for key, epoch in zip(batch.keys, batch.epochs, strict=True)
    ]
    return joined(each)
