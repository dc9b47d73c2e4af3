"""Prior preservation: beside every tile an image of what the model knew, so that it stays known.

The loss of DreamBooth (Ruiz et al., 2022): that of the tiles plus a weight times that of the
regularisation images, which are given as shards ("aerial photography" from an archive, or images
that the base model generated).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from hpc.job.agreement import RankGroup
from sarhpc.diffusion.objective import Draw
from sarhpc.shards.loader import Cursor
from sarhpc.shards.samples import ShardedSamples
from sarhpc.training.config import PriorConfig, TrainConfig
from sarhpc.training.denoising.data import Latents, Samples, TileBatch, feed


class PriorSamples:
    """The regularisation images of a configuration; their keys never meet those of the tiles."""

    def __init__(self, cfg: PriorConfig) -> None:
        """Index the shards.

        Raises:
            DataError: there are none, or one is damaged.
        """
        shards = [] if cfg.shards is None else sorted(Path(cfg.shards).rglob("*.tar"))
        if not shards:
            raise DataError(
                f"no shards under {cfg.shards}: name their folder in train.prior.shards."
            )
        self._samples = ShardedSamples(shards)
        self._cfg = cfg

    def __len__(self) -> int:
        return len(self._samples)

    def key(self, number: int) -> str:
        """Key of image `number`."""
        return f"prior/{self._samples.key(number)}"

    def load(self, number: int, image_member: str) -> tuple[NDArray[np.float32], str]:
        """Image (H, W, 3) in [-1, 1] and its caption, or the prompt that stands for all."""
        prompt = self._cfg.prompt
        # Without captions of its own a set of images needs none.
        caption = "txt" if prompt is None else None
        image, own = self._samples.load(number, self._cfg.image_member, caption)
        return image, own if prompt is None else prompt


def feed_with_prior(
    cfg: TrainConfig,
    samples: Samples,
    cursor: Cursor,
    step: int,
    ranks: RankGroup,
    latents: Latents | None = None,
    draw: Callable[[TileBatch], Draw] | None = None,
) -> Generator[tuple[Cursor, TileBatch]]:
    """As `feed`, each batch with as many regularisation images if `cfg` has any.

    Their place follows from `step`, the steps done: nothing of it has to be saved. Close the
    iterator to end its threads.
    """
    with closing(feed(cfg, samples, cursor, ranks, latents, draw)) as tiles:
        if cfg.prior is None:
            yield from tiles
            return
        images = PriorSamples(cfg.prior)
        epoch, sample = divmod(step * cfg.global_batch, len(images))
        plain = replace(cfg, azimuth_flip=False, shuffle_captions=False)
        with closing(feed(plain, images, Cursor(epoch, sample), ranks, draw=draw)) as others:
            for (after, batch), (_, prior) in zip(tiles, others, strict=True):
                yield after, replace(batch, prior=prior)
