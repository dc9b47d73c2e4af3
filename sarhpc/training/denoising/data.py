"""From samples to tensors: the part of each global batch that one rank trains on."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpc.errors import ConfigError
from hpc.job.agreement import RankGroup
from sarhpc.diffusion.config import LAYERS
from sarhpc.diffusion.objective import Draw, sample_seed
from sarhpc.shards.loader import Cursor, SampleOrder, batches, prefetch_assembled
from sarhpc.shards.mirror import mirrored
from sarhpc.training.config import TrainConfig

MOST_THREADS = 16
"""Threads that read samples, where the cores decide; more of them wait for each other."""


@dataclass(frozen=True)
class _Loaded:
    """A sample as it is stored in its shard."""

    key: str
    image: NDArray[np.float32] | None
    """None where its latent is stored."""
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


@runtime_checkable
class EncodedSamples(Samples, Protocol):
    """Samples whose parts can be had alone, and whose images are in files."""

    def encoded(self, number: int, image_member: str) -> bytes:
        """The image as it is stored."""

    def caption(self, number: int) -> str:
        """The caption alone."""


class Latents(Protocol):
    """Latents that were encoded before."""

    def read(
        self, samples: Samples, number: int, *, flipped: bool
    ) -> dict[bool, NDArray[np.float32]]:
        """Mean and log-variance (8, h, w) of a sample, and of it flipped if asked."""


@dataclass(frozen=True)
class TileBatch:
    """Samples of one rank for one step or one micro-batch of it."""

    images: Tensor | None
    """(B, 3, H, W) float32 in [-1, 1]; None where stored latents stand for them."""
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
    choices: Draw | None = None
    """What is drawn for the samples; None until then."""

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
                None if self.images is None else self.images[cut],
                self.captions[cut],
                self.keys[cut],
                self.epochs[cut],
                self.flipped[cut],
                None if self.layers is None else self.layers[cut],
                None if self.moments is None else self.moments[cut],
                prior,
                None if self.choices is None else part_of(self.choices, cut),
            )

    def with_prior_beside(self) -> TileBatch:
        """One batch of the samples and, after them, the regularisation images.

        Raises:
            ConfigError: they are of another size.
        """
        other = self.prior
        if other is None:
            return self
        assert self.images is not None
        assert other.images is not None
        if other.images.shape[1:] != self.images.shape[1:]:
            both = (other.images, self.images)
            sizes = [" x ".join(map(str, images.shape[2:])) for images in both]
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
            choices=None
            if self.choices is None or other.choices is None
            else joined([self.choices, other.choices]),
        )


def joined(draws: Sequence[Draw]) -> Draw:
    """The choices of several batches as those of one."""
    return Draw(
        timesteps=torch.cat([draw.timesteps for draw in draws]),
        noise=torch.cat([draw.noise for draw in draws]),
        latent_noise=torch.cat([draw.latent_noise for draw in draws]),
        dropped=tuple(drop for draw in draws for drop in draw.dropped),
    )


def part_of(draw: Draw, cut: slice) -> Draw:
    """The choices of a part of a batch."""
    return Draw(draw.timesteps[cut], draw.noise[cut], draw.latent_noise[cut], draw.dropped[cut])


def order(cfg: TrainConfig, samples: Samples) -> SampleOrder:
    """The order in which the run sees its samples."""
    return SampleOrder(cfg.seed, len(samples))


def feed(
    cfg: TrainConfig,
    samples: Samples,
    cursor: Cursor,
    ranks: RankGroup,
    latents: Latents | None = None,
    draw: Callable[[TileBatch], Draw] | None = None,
) -> Generator[tuple[Cursor, TileBatch]]:
    """Yield (cursor after the global batch, this rank's part of it) from `cursor` on.

    What is yielded does not depend on threads or read-ahead. Close the iterator to end its threads.

    Args:
        cfg: the training.
        samples: tiles with captions.
        cursor: place in the samples.
        ranks: this process among the others.
        latents: latents of the tiles; whose images are not decoded then, except for a prior.
        draw: draws the choices of a batch, in the threads that read it; None draws none.
    """
    sequence = order(cfg, samples)
    load = _loader(cfg, samples, latents)

    def assemble(after: Cursor, loaded: list[_Loaded]) -> TileBatch:
        """The batch that ends at `after`, with what is drawn for it."""
        batch = _batch(cfg, loaded, _epochs(cfg, after, len(samples), ranks))
        return batch if draw is None else replace(batch, choices=draw(batch))

    plan = batches(sequence, cursor, cfg.global_batch, ranks.rank, ranks.world)
    threads = loader_threads(cfg, os.environ)
    share = max(1, cfg.global_batch // ranks.world)
    # Small shares keep all threads busy too.
    depth = max(2, 1 + -(-threads // share))
    yield from prefetch_assembled(load, assemble, plan, threads=threads, depth=depth)


def loader_threads(cfg: TrainConfig, environment: Mapping[str, str]) -> int:
    """Threads that read samples: as configured, or all cores of the rank but that of the step."""
    if cfg.loader_threads is not None:
        return cfg.loader_threads
    given = environment.get("SLURM_CPUS_PER_TASK", "")
    cores = int(given) if given.isdigit() else 0
    if not cores:
        # Ranks that are not bound to cores share those of the machine.
        local = environment.get("LOCAL_WORLD_SIZE") or environment.get("WORLD_SIZE") or "1"
        cores = len(os.sched_getaffinity(0)) // max(1, int(local))
    return min(max(1, cores - 1), MOST_THREADS)


def _loader(
    cfg: TrainConfig, samples: Samples, latents: Latents | None
) -> Callable[[int], _Loaded]:
    """Loads a sample, in the control experiments with the caption or the layer of another."""
    captioned_by = _permuted(cfg, len(samples)) if cfg.shuffle_captions else None
    layer_of = _layers(cfg, samples)
    # Regularisation images are encoded in the step, and the tiles beside them too.
    is_stored = latents is not None and cfg.prior is None

    def caption_of(number: int) -> str:
        """The caption of a sample, without its image where that can be."""
        if isinstance(samples, EncodedSamples):
            return samples.caption(number)
        return samples.load(number, cfg.image_member)[1]

    def load(number: int) -> _Loaded:
        """A sample, its image where that is needed."""
        key, image, caption = samples.key(number), None, ""
        if is_stored:
            caption = caption_of(number) if captioned_by is None else ""
        else:
            image, caption = samples.load(number, cfg.image_member)
        if captioned_by is not None:
            caption = caption_of(int(captioned_by[number]))
        moments = None
        if latents is not None:
            moments = latents.read(samples, number, flipped=cfg.azimuth_flip)
        return _Loaded(key, image, caption, layer_of(number), moments)

    return load


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
    images = [sample.image for sample in loaded if sample.image is not None]
    layers = [sample.layer for sample in loaded if sample.layer is not None]
    return TileBatch(
        _stacked(images, flipped) if images else None,
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
    height, width, channels = images[0].shape
    stacked = np.empty((len(images), channels, height, width), np.float32)
    # One copy of each, to where it stays; numpy would keep the channels innermost, in which
    # convolutions round otherwise.
    np.stack([image.transpose(2, 0, 1) for image in oriented], out=stacked)
    return torch.from_numpy(stacked)


def flips(seed: int, epoch: int, key: str) -> bool:
    """Whether a sample is flipped along azimuth in an epoch: a coin of its own."""
    return bool(sample_seed(seed, epoch, f"flip/{key}") & 1)
