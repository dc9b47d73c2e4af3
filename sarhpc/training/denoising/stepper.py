"""One optimiser step: encode, draw, forward, backward, agree, update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sarhpc.diffusion.bundle import Bundle
from sarhpc.diffusion.conditioning import size_ids, tokenize, tokens_cut
from sarhpc.diffusion.config import ObjectiveConfig
from sarhpc.diffusion.dylora import DynamicRanks, draw_ranks
from sarhpc.diffusion.objective import Draw, add_noise, draw, loss_per_sample, with_dropout
from sarhpc.training.checkpoints.partition import Partition
from sarhpc.training.config import TrainConfig
from sarhpc.training.denoising.data import Share
from sarhpc.training.denoising.latents import LatentEncoder, StoredLatents, autoencoder_digest
from sarhpc.training.metrics.gradient_norms import GroupNorms
from sarhpc.training.metrics.log import StepClock
from sarhpc.training.nonfinite import spoilt
from sarhpc.training.ranks import Ranks
from sarhpc.training.updates import update_sharded


class Stepper:
    """Takes optimiser steps with an engine; what it does with a sample depends on nothing else."""

    def __init__(
        self,
        cfg: TrainConfig,
        bundle: Bundle,
        engine: Any,
        partition: Partition,
        ranks: Ranks,
        latents: Sequence[Path] = (),
    ) -> None:
        self.engine = engine
        self.partition = partition
        self.clock = StepClock(ranks.device)
        self._cfg = cfg
        self._objective = objective_config(cfg)
        self._skips = cfg.on_nonfinite == "skip"
        self._ranks = ranks
        self._norms = GroupNorms(engine, replicated=partition.replicated)
        self._encoder = LatentEncoder(bundle.vae, ranks.device, cache=cfg.cache_latents)
        self.stored = StoredLatents(latents, autoencoder_digest(bundle.vae)) if latents else None
        """Latents encoded before, by this very autoencoder."""
        self._vae_scale = float(bundle.vae.config.scaling_factor)
        self.captions_cut = 0
        """Captions of this rank, in the last step that was timed, that the encoder did not read to
        their end."""
        self._tokenizers = bundle.tokenizers
        self._has_size_ids = bundle.family.size_ids > 0
        self._scheduler = bundle.scheduler
        self._dynamic = (
            DynamicRanks(bundle.models, cfg.adapter)
            if cfg.adapter is not None and cfg.adapter.kind == "dylora"
            else None
        )
        prior = 1.0 if cfg.prior is None else cfg.prior.weight
        self._weights = torch.tensor([1.0, prior], device=ranks.device)

    def learn(self, share: Share) -> Tensor:
        """Mean losses (2,) of this rank's tiles and of its regularisation images (0 without any).

        On the device; gradients are in place afterwards.
        """
        clock, micros = self.clock, list(share.micro(self._cfg.micro_batch))
        self.captions_cut = 0
        total = torch.zeros(2, device=self._ranks.device)
        for number, tiles in enumerate(micros):
            micro = tiles.with_prior_beside()
            if number:
                self.engine.step()  # not a boundary: DeepSpeed only counts it
            with clock.part("encode"):
                latents, choices = self._latents(micro)
                conditions = self._conditions(micro, choices)
                noisy = add_noise(self._scheduler, latents, choices)
            self._take_ranks(micro)
            with clock.part("forward"):
                prediction = self.engine(
                    noisy,
                    choices.timesteps.to(latents.device),
                    *conditions,
                    **self._steering(micro),
                )
                errors = loss_per_sample(
                    self._scheduler, prediction, latents, choices, self._objective
                )
                losses = self._losses(errors, len(tiles.keys))
            with clock.part("backward"):
                loss = (losses * self._weights).sum()
                self.engine.backward(spoilt(loss) if self._skips else loss)
            total += losses.detach() / len(micros)
        return total

    def update(self, *, by_group: bool) -> tuple[float, dict[str, float]]:
        """Clip and apply the gradients; their norm before clipping, on demand of each group too.

        Where that is not finite, nothing is applied: not to weights, not to moments; then no
        group's is told. Collective.
        """
        self._norms.watches = by_group
        with self.clock.part("optimizer"):
            replicated = self.partition.replicated
            whole = self._update_replicated() if replicated else update_sharded(self.engine)
            told = by_group and math.isfinite(whole)
            return whole, self._norms.before_clipping(whole) if told else {}

    def _update_replicated(self) -> float:
        """The same at stage 0, which clips without telling the norm, and applies any gradient."""
        gradients = [t.grad for t in self.partition.tensors if t.grad is not None]
        whole = float(torch.nn.utils.get_total_norm(gradients))
        if math.isfinite(whole):
            self.engine.step()
        else:
            self.engine.zero_grad()
            self.engine.micro_steps += 1  # its step would count the last micro-batch
        return whole

    @staticmethod
    def _losses(errors: Tensor, tiles: int) -> Tensor:
        """Mean errors (2,) of the first `tiles` samples and of the rest, 0 if there is none."""
        prior = errors[tiles:].mean() if len(errors) > tiles else torch.zeros_like(errors[0])
        return torch.stack([errors[:tiles].mean(), prior])

    def _latents(self, share: Share) -> tuple[Tensor, Draw]:
        """Scaled latents (B, 4, h, w) from the autoencoder's posterior, and the choices."""
        mean, logvar = self._encoder.moments(share).chunk(2, dim=1)
        choices = draw_share(
            share,
            seed=self._cfg.seed,
            shape=(mean.shape[1], mean.shape[2], mean.shape[3]),
            cfg=self._objective,
            timesteps=int(self._scheduler.config.num_train_timesteps),
        )
        deviation = torch.exp(0.5 * logvar)
        sampled = mean + deviation * choices.latent_noise.to(mean.device)
        return sampled * self._vae_scale, choices

    def _take_ranks(self, share: Share) -> None:
        """Let each sample learn with as many directions as it draws, where they are drawn."""
        if self._dynamic is not None and self._cfg.adapter is not None:
            drawn = draw_ranks(self._cfg.adapter, share.keys, share.epochs, self._cfg.seed)
            self._dynamic.set_ranks(drawn, self._ranks.device)

    def _steering(self, share: Share) -> dict[str, Tensor]:
        """The layers that a ControlNet reads, where there is one."""
        return {} if share.layers is None else {"layer": share.layers.to(self._ranks.device)}

    def _conditions(self, share: Share, choices: Draw) -> list[Tensor]:
        """Token ids (B, L) for each text encoder and, where the family has them, size ids."""
        captions = with_dropout(share.captions, choices.dropped)
        if self.clock.exact:
            self.captions_cut += sum(cut > 0 for cut in tokens_cut(self._tokenizers[0], captions))
        found = [tokenize(tokenizer, captions) for tokenizer in self._tokenizers]
        if self._has_size_ids:
            found.append(size_ids(share.images))
        return [tensor.to(self._ranks.device) for tensor in found]


def objective_config(cfg: TrainConfig) -> ObjectiveConfig:
    """The objective's part of a training configuration."""
    return ObjectiveConfig(cfg.caption_dropout, cfg.min_snr_gamma, cfg.noise_offset)


def draw_share(
    share: Share, *, seed: int, shape: tuple[int, int, int], cfg: ObjectiveConfig, timesteps: int
) -> Draw:
    """The random choices of a share, whose samples may lie in two epochs."""
    each = [
        draw([key], seed=seed, epoch=epoch, shape=shape, cfg=cfg, train_timesteps=timesteps)
        for key, epoch in zip(share.keys, share.epochs, strict=True)
    ]
    return Draw(
        timesteps=torch.cat([one.timesteps for one in each]),
        noise=torch.cat([one.noise for one in each]),
        latent_noise=torch.cat([one.latent_noise for one in each]),
        dropped=tuple(drop for one in each for drop in one.dropped),
    )
