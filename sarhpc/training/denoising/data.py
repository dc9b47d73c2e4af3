"""From samples to tensors: the part of each global batch that one rank trains on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpc.errors import ConfigError
from hpc.job.agreement import RankGroup
from sarhpc.diffusion.config import LAYERS
from sarhpc.diffusion.objective import sample_seed
from sarhpc.shards.loader import Cursor, SampleOrder, batches, prefetch
from sarhpc.shards.mirror import mirrored
from sarhpc.training.config import TrainConfig


@dataclass(frozen=True)
class _Loaded:
    """A sample as it is stored in its shard."""

    key: str
    image: NDArray[np.float32]
    caption: str
    layer: NDArray[np.float32] | None
    moments: dict[bool, NDArray[np.float32]] | None
    """Stored latent of the image and, where it may be flipped, of the flipped one."""


class Samples(Protocol):
    """A map-style set of captioned images."""

    def __len__(self) -> int:
        """How many there are."""

    def load(self, number: int, image_member: str) -> tuple[NDArray[np.float32], str]:
        """Image (H, W, 3) in [-1, 1] and caption of sample `number`."""

    def key(self, number: int) -> str:
        """Key of sample `number`."""


class Latents(Protocol):
    """Latents that were encoded before."""

    def read(
        self, key: str, image: NDArray[np.float32], *, flipped: bool
    ) -> dict[bool, NDArray[np.float32]]:
        """Mean and log-variance (8, h, w) of a sample, and of it flipped if asked."""


@dataclass(frozen=True)
class TileBatch:
    """Samples of one rank for one step or one micro-batch of it."""

    images: Tensor
    """(B, 3, H, W) float32 in [-1, 1]."""
    captions: tuple[str, ...]
    keys: tuple[str, ...]
    epochs: tuple[int, ...]
    """Epoch each sample is seen in; a batch may reach over an epoch's end."""
    flipped: tuple[bool, ...]
    """Whether the image is flipped along azimuth."""
    layers: Tensor | None = None
    """(B, 3, H, W) float32 in [0, 1]: what a ControlNet is steered by."""
    moments: Tensor | None = None
    """(B, 8, h, w) float32: stored mean and log-variance of the latents."""
    prior: TileBatch | None = None
    """As many regularisation images, where the prior is preserved."""

    @property
    def all_keys(self) -> list[str]:
        """Keys of the samples, then those of the regularisation images."""
        return [*self.keys, *(self.prior.keys if self.prior is not None else ())]

    def micro(self, size: int) -> Iterator[TileBatch]:
        """Yield the batch in micro-batches of `size`, and as many regularisation images."""
        priors = itertools.repeat(None) if self.prior is None else self.prior.micro(size)
        for start, prior in zip(range(0, len(self.keys), size), priors, strict=False):
            cut = slice(start, start + size)
            yield TileBatch(
                self.images[cut],
                self.captions[cut],
                self.keys[cut],
                self.epochs[cut],
                self.flipped[cut],
                None if self.layers is None else self.layers[cut],
                None if self.moments is None else self.moments[cut],
                prior,
            )

    def with_prior_beside(self) -> TileBatch:
        """One batch of the samples and, after them, the regularisation images.

        Raises:
            ConfigError: they are of another size.
        """
        other = self.prior
        if other is None:
            return self
        if other.images.shape[1:] != self.images.shape[1:]:
            sizes = [" x ".join(map(str, batch.images.shape[2:])) for batch in (other, self)]
            raise ConfigError(
                f"the images in train.prior.shards are {sizes[0]} px and the tiles {sizes[1]}; "
                "give some of the same size"
            )
        return TileBatch(
            torch.cat([self.images, other.images]),
            self.captions + other.captions,
            self.keys + other.keys,
            self.epochs + other.epochs,
            self.flipped + other.flipped,
        )


def order(cfg: TrainConfig, samples: Samples) -> SampleOrder:
    """The order in which the run sees its samples."""
    return SampleOrder(cfg.seed, len(samples))


def feed(
    cfg: TrainConfig,
    samples: Samples,
    cursor: Cursor,
    ranks: RankGroup,
    latents: Latents | None = None,
) -> Generator[tuple[Cursor, TileBatch]]:
    """Yield (cursor after the global batch, this rank's part of it) from `cursor` on.

    What is yielded does not depend on threads or read-ahead. Close the iterator to end its threads.
    """
    sequence = order(cfg, samples)

    captioned_by = _permuted(cfg, len(samples)) if cfg.shuffle_captions else None
    layer_of = _layers(cfg, samples)

    def load(number: int) -> _Loaded:
        """A sample, in the control experiments with the caption or the layer of another."""
        image, caption = samples.load(number, cfg.image_member)
        if captioned_by is not None:
            _, caption = samples.load(int(captioned_by[number]), cfg.image_member)
        key = samples.key(number)
        moments = None
        if latents is not None:
            moments = latents.read(key, image, flipped=cfg.azimuth_flip)
        return _Loaded(key, image, caption, layer_of(number), moments)

    plan = batches(sequence, cursor, cfg.global_batch, ranks.rank, ranks.world)
    for after, loaded in prefetch(load, plan, threads=cfg.loader_threads):
        yield after, _batch(cfg, loaded, _epochs(cfg, after, len(samples), ranks))


def _permuted(cfg: TrainConfig, n: int) -> NDArray[np.int64]:
    """The sample that each sample is given a part of, in a control experiment."""
    return np.random.default_rng(cfg.seed).permutation(n)


def _layers(cfg: TrainConfig, samples: Samples) -> Callable[[int], NDArray[np.float32] | None]:
    """What tells the layer (H, W, 3) in [0, 1] that steers the image of a sample, if any does."""
    control = cfg.control
    if control is None:
        return lambda number: None
    member = LAYERS[control.layer]
    others = _permuted(cfg, len(samples)) if control.shuffle else None

    def layer_of(number: int) -> NDArray[np.float32]:
        """The layer of a sample, or that of another in the control experiment."""
        image, _ = samples.load(number if others is None else int(others[number]), member)
        return (image + np.float32(1)) / np.float32(2)

    return layer_of


def _epochs(cfg: TrainConfig, after: Cursor, n: int, ranks: RankGroup) -> tuple[int, ...]:
    """Epoch of each of this rank's samples in the global batch that ends at `after`."""
    count = cfg.global_batch // ranks.world
    first = after.epoch * n + after.sample - cfg.global_batch + ranks.rank * count
    return tuple(position // n for position in range(first, first + count))


def _batch(cfg: TrainConfig, loaded: list[_Loaded], epochs: tuple[int, ...]) -> TileBatch:
    keys = tuple(sample.key for sample in loaded)
    mirrors = [_mirror(cfg, epoch, sample) for epoch, sample in zip(epochs, loaded, strict=True)]
    flipped = tuple(mirror is not None for mirror in mirrors)
    captions = tuple(
        sample.caption if mirror is None else mirror
        for sample, mirror in zip(loaded, mirrors, strict=True)
    )
    layers = [sample.layer for sample in loaded if sample.layer is not None]
    return TileBatch(
        _stacked([sample.image for sample in loaded], flipped),
        captions,
        keys,
        epochs,
        flipped,
        _stacked(layers, flipped) if layers else None,
        _stored(loaded, flipped),
    )


def _stored(loaded: Sequence[_Loaded], flipped: Sequence[bool]) -> Tensor | None:
    """Stored latents of the images, flipped or not; None where none are stored."""
    stored = [
        sample.moments[flip]
        for sample, flip in zip(loaded, flipped, strict=True)
        if sample.moments is not None
    ]
    return torch.from_numpy(np.stack(stored)) if stored else None


def _mirror(cfg: TrainConfig, epoch: int, sample: _Loaded) -> str | None:
    """The caption of the flipped sample, where an epoch flips it."""
    flipped = cfg.azimuth_flip and flips(cfg.seed, epoch, sample.key)
    return mirrored(sample.caption) if flipped else None


def _stacked(images: Sequence[NDArray[np.float32]], flipped: Sequence[bool]) -> Tensor:
    """Images (H, W, 3) as (B, 3, H, W), those flipped upside down."""
    oriented = [image[::-1] if flip else image for image, flip in zip(images, flipped, strict=True)]
    return torch.from_numpy(np.stack(oriented)).permute(0, 3, 1, 2).contiguous()


def flips(seed: int, epoch: int, key: str) -> bool:
    """Whether a sample is flipped along azimuth in an epoch: a coin of its own."""
    return bool(sample_seed(seed, epoch, f"flip/{key}") & 1)
