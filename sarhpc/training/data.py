"""From samples to tensors: the share of each global batch that one rank trains on."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpc.errors import ConfigError
from sarhpc.diffusion.objective import sample_seed
from sarhpc.shards.loader import Cursor, SampleOrder, batches, prefetch
from sarhpc.training.config import TrainConfig
from sarhpc.training.mirror import mirrored
from sarhpc.training.ranks import Ranks

_Loaded = tuple[str, NDArray[np.float32], str]


class Samples(Protocol):
    """A map-style set of captioned images."""

    def __len__(self) -> int:
        """How many there are."""

    def load(self, number: int, image_member: str) -> tuple[NDArray[np.float32], str]:
        """Image (H, W, 3) in [-1, 1] and caption of sample `number`."""

    def key(self, number: int) -> str:
        """Key of sample `number`."""


@dataclass(frozen=True)
class Share:
    """Samples of one rank for one step or one micro-batch of it."""

    images: Tensor
    """(B, 3, H, W) float32 in [-1, 1]."""
    captions: tuple[str, ...]
    keys: tuple[str, ...]
    epochs: tuple[int, ...]
    """Epoch each sample is seen in; a batch may reach over an epoch's end."""
    flipped: tuple[bool, ...]
    """Whether the image is flipped along azimuth."""
    prior: Share | None = None
    """As many regularisation images, where the prior is preserved."""

    @property
    def all_keys(self) -> list[str]:
        """Keys of the samples, then those of the regularisation images."""
        return [*self.keys, *(self.prior.keys if self.prior is not None else ())]

    def micro(self, size: int) -> Iterator[Share]:
        """Yield the share in micro-batches of `size`, and as many regularisation images."""
        priors = itertools.repeat(None) if self.prior is None else self.prior.micro(size)
        for start, prior in zip(range(0, len(self.keys), size), priors, strict=False):
            cut = slice(start, start + size)
            yield Share(
                self.images[cut],
                self.captions[cut],
                self.keys[cut],
                self.epochs[cut],
                self.flipped[cut],
                prior,
            )

    def with_prior_beside(self) -> Share:
        """One share of the samples and, after them, the regularisation images.

        Raises:
            ConfigError: they are of another size.
        """
        other = self.prior
        if other is None:
            return self
        if other.images.shape[1:] != self.images.shape[1:]:
            sizes = [" x ".join(map(str, share.images.shape[2:])) for share in (other, self)]
            raise ConfigError(
                f"the images in train.prior.shards are {sizes[0]} px and the tiles {sizes[1]}; "
                "give some of the same size"
            )
        return Share(
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
    cfg: TrainConfig, samples: Samples, cursor: Cursor, ranks: Ranks
) -> Generator[tuple[Cursor, Share]]:
    """Yield (cursor after the global batch, this rank's share of it) from `cursor` on.

    What is yielded does not depend on threads or read-ahead. Close the iterator to end its threads.
    """
    sequence = order(cfg, samples)

    captioned_by = _captioned_by(cfg, len(samples))

    def load(number: int) -> _Loaded:
        """Key, image and caption of a sample."""
        image, caption = samples.load(number, cfg.image_member)
        if captioned_by is not None:
            _, caption = samples.load(int(captioned_by[number]), cfg.image_member)
        return samples.key(number), image, caption

    plan = batches(sequence, cursor, cfg.global_batch, ranks.rank, ranks.world)
    for after, loaded in prefetch(load, plan, threads=cfg.loader_threads):
        yield after, _share(cfg, loaded, _epochs(cfg, after, len(samples), ranks))


def _captioned_by(cfg: TrainConfig, n: int) -> NDArray[np.int64] | None:
    """The sample whose caption each sample is given, in the control experiment."""
    return np.random.default_rng(cfg.seed).permutation(n) if cfg.shuffle_captions else None


def _epochs(cfg: TrainConfig, after: Cursor, n: int, ranks: Ranks) -> tuple[int, ...]:
    """Epoch of each of this rank's samples in the global batch that ends at `after`."""
    count = cfg.global_batch // ranks.world
    first = after.epoch * n + after.sample - cfg.global_batch + ranks.rank * count
    return tuple(position // n for position in range(first, first + count))


def _share(cfg: TrainConfig, loaded: list[_Loaded], epochs: tuple[int, ...]) -> Share:
    keys = tuple(key for key, _, _ in loaded)
    seen = [
        _seen(cfg, epoch, key, image, caption)
        for epoch, (key, image, caption) in zip(epochs, loaded, strict=True)
    ]
    images, captions, flipped = zip(*seen, strict=True)
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return Share(stacked, captions, keys, epochs, flipped)


def _seen(
    cfg: TrainConfig, epoch: int, key: str, image: NDArray[np.float32], caption: str
) -> tuple[NDArray[np.float32], str, bool]:
    """Image and caption as an epoch shows them, and whether they are flipped."""
    other = mirrored(caption) if cfg.azimuth_flip and flips(cfg.seed, epoch, key) else None
    return (image, caption, False) if other is None else (image[::-1], other, True)


def flips(seed: int, epoch: int, key: str) -> bool:
    """Whether a sample is flipped along azimuth in an epoch: a coin of its own."""
    return bool(sample_seed(seed, epoch, f"flip/{key}") & 1)
