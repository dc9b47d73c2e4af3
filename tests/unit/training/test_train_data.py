"""Shares of a global batch: complete, in order, and the same for every number of ranks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hpc.job.agreement import SingleProcess
from sarhpc.diffusion.autoencoder import new_autoencoder
from sarhpc.diffusion.config import AutoencoderShape, ObjectiveConfig
from sarhpc.shards.loader import Cursor
from sarhpc.training.config import TrainConfig
from sarhpc.training.denoising.data import TileBatch, feed, flips
from sarhpc.training.denoising.latents import LatentEncoder
from sarhpc.training.denoising.task import draw_batch

CPU = torch.device("cpu")


@dataclass
class NumberedTiles:
    """Tiles whose pixels tell their number (first row negative, to see a flip)."""

    n: int = 10
    reads: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.n

    def key(self, number: int) -> str:
        return f"{number:011d}"

    def load(self, number: int, image_member: str) -> tuple[NDArray[np.float32], str]:
        self.reads.append(number)
        image = np.full((8, 8, 3), number / 100, np.float32)
        image[0] = -1
        return image, f"tile {number}"


def take(cfg: TrainConfig, rank: int, world: int, steps: int, n: int = 10) -> list[TileBatch]:
    batches = feed(cfg, NumberedTiles(n), Cursor(), SingleProcess(rank, world))
    shares = [next(batches)[1] for _ in range(steps)]
    batches.close()
    return shares


def pixels(share: TileBatch) -> torch.Tensor:
    assert share.images is not None
    return share.images


def test_ranks_together_see_what_one_rank_sees() -> None:
    cfg = TrainConfig(global_batch=4, azimuth_flip=True)
    alone = take(cfg, 0, 1, 5)
    pairs = zip(take(cfg, 0, 2, 5), take(cfg, 1, 2, 5), strict=True)
    for whole, (first, second) in zip(alone, pairs, strict=True):
        assert whole.keys == first.keys + second.keys
        assert whole.epochs == first.epochs + second.epochs
        assert whole.captions == first.captions + second.captions
        assert torch.equal(pixels(whole), torch.cat([pixels(first), pixels(second)]))


def test_each_epoch_holds_each_sample_once_and_says_its_number() -> None:
    shares = take(TrainConfig(global_batch=4), 0, 1, 5)
    seen = [
        (epoch, key)
        for share in shares
        for epoch, key in zip(share.epochs, share.keys, strict=True)
    ]
    assert len(set(seen)) == 20
    assert {epoch for epoch, _ in seen} == {0, 1}
    assert shares[2].epochs == (0, 0, 1, 1)


def test_shuffled_captions_are_those_of_other_images_the_same_in_every_epoch() -> None:
    cfg = TrainConfig(global_batch=10, shuffle_captions=True)
    first, second = (
        dict(zip(share.keys, share.captions, strict=True)) for share in take(cfg, 0, 1, 2)
    )
    assert first == second
    assert sorted(first.values()) == [f"tile {n}" for n in range(10)]
    strayed = [key for key, caption in first.items() if int(key) != int(caption.split()[1])]
    assert len(strayed) >= 7


def test_feed_goes_on_from_a_cursor() -> None:
    cfg = TrainConfig(global_batch=4)
    batches = feed(cfg, NumberedTiles(), Cursor(), SingleProcess(0, 1))
    steps = [next(batches) for _ in range(4)]
    batches.close()
    resumed = feed(cfg, NumberedTiles(), steps[1][0], SingleProcess(0, 1))
    for cursor, share in steps[2:]:
        again_cursor, again = next(resumed)
        assert (again_cursor, again.keys, again.epochs) == (cursor, share.keys, share.epochs)
    resumed.close()


def test_flip_turns_rows_only_and_about_half_of_them() -> None:
    cfg = TrainConfig(global_batch=10, azimuth_flip=True)
    (share,) = take(cfg, 0, 1, 1)
    for image, flipped in zip(pixels(share), share.flipped, strict=True):
        row = -1 if flipped else 0
        assert (image[:, row] == -1).all()
    coins = [flips(0, epoch, f"{number}") for epoch in range(10) for number in range(100)]
    assert 430 < sum(coins) < 570
    assert not any(take(TrainConfig(global_batch=10), 0, 1, 1)[0].flipped)


def test_channels_lie_outermost_in_memory_as_convolutions_round_by_the_order() -> None:
    (share,) = take(TrainConfig(global_batch=4), 0, 1, 1)
    assert share.images is not None
    assert share.images.is_contiguous()
    assert share.images.stride()[1] == 8 * 8


def test_micro_batches_cut_the_share_without_loss() -> None:
    (share,) = take(TrainConfig(global_batch=8), 0, 1, 1)
    parts = list(share.micro(2))
    assert [part.keys for part in parts] == [share.keys[i : i + 2] for i in (0, 2, 4, 6)]
    assert torch.equal(torch.cat([pixels(part) for part in parts]), pixels(share))


def test_draws_follow_the_sample_wherever_it_stands() -> None:
    (share,) = take(TrainConfig(global_batch=4), 0, 1, 1, n=3)
    assert set(share.epochs) == {0, 1}
    arguments = {"seed": 1, "shape": (4, 2, 2), "cfg": ObjectiveConfig(), "timesteps": 1000}
    together = draw_batch(share, **arguments)  # type: ignore[arg-type]
    for row, alone in enumerate(share.micro(1)):
        single = draw_batch(alone, **arguments)  # type: ignore[arg-type]
        assert torch.equal(single.noise[0], together.noise[row])
        assert single.timesteps[0] == together.timesteps[row]


@pytest.fixture(scope="module")
def autoencoder() -> object:
    return new_autoencoder(AutoencoderShape([4, 4, 8, 8], norm_groups=4, sample_size=32), 0)


def test_cached_moments_are_the_autoencoders_whoever_filled_the_cache(autoencoder: object) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 32, 32, generator=generator) * 2 - 1
    share = TileBatch(images, ("",) * 3, ("a", "b", "c"), (0,) * 3, (False,) * 3)
    cached = LatentEncoder(autoencoder, CPU, cache=True)
    list(map(cached.moments, share.micro(1)))
    first = cached.moments(share)
    fresh = LatentEncoder(autoencoder, CPU, cache=True).moments(share)
    plain = LatentEncoder(autoencoder, CPU, cache=False).moments(share)

    assert first.shape == (3, 8, 4, 4)
    assert torch.equal(first, fresh)
    assert torch.allclose(first, plain, atol=1e-5)
    assert not torch.equal(plain[0], plain[1])


def test_cache_knows_a_flipped_tile_from_an_upright_one(autoencoder: object) -> None:
    image = torch.linspace(-1, 1, 32)[None, None, :, None].expand(1, 3, 32, 32).contiguous()
    upright = TileBatch(image, ("",), ("a",), (0,), (False,))
    turned = TileBatch(image.flip(2), ("",), ("a",), (1,), (True,))
    encoder = LatentEncoder(autoencoder, CPU, cache=True)
    assert not torch.equal(encoder.moments(upright), encoder.moments(turned))
