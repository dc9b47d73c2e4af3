"""Regularisation images beside the tiles: as many, in their own order, exact after a resume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hpc.errors import ConfigError, DataError
from hpc.job.agreement import RankGroup, SingleProcess
from sarhpc.shards.images import encode_gray8, encode_rgb8
from sarhpc.shards.loader import Cursor
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.writer import write_shard
from sarhpc.training.config import PriorConfig, TrainConfig
from sarhpc.training.denoising.data import TileBatch
from sarhpc.training.denoising.prior import PriorSamples, feed_with_prior

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Tiles:
    px: int = 8

    def __len__(self) -> int:
        return 10

    def key(self, number: int) -> str:
        return sample_key(0, number)

    def load(self, number: int, image_member: str) -> tuple[NDArray[np.float32], str]:
        return np.zeros((self.px, self.px, 3), np.float32), f"tile {number}"


@pytest.fixture
def aerial(tmp_path: Path) -> Path:
    """Seven images in two shards, with captions of their own and a gray one beside the colours."""
    for shard, count in ((0, 4), (1, 3)):
        samples = []
        for index in range(count):
            colour = np.full((8, 8, 3), 10 * shard + index, np.uint8)
            key = sample_key(shard, index)
            members = {
                "optic.png": encode_rgb8(colour),
                "sar.png": encode_gray8(255 - colour[:, :, 0]),
                "txt": f"field {shard}{index}".encode(),
                "meta.json": encode_json({"key": key}),
            }
            samples.append(Sample(key, members))
        write_shard(tmp_path / "shards" / "train" / f"{shard:06d}.tar", samples)
    return tmp_path / "shards"


def take(
    cfg: TrainConfig, cursor: Cursor, step: int, ranks: RankGroup, count: int
) -> list[TileBatch]:
    batches = feed_with_prior(cfg, Tiles(), cursor, step, ranks)
    shares = [next(batches)[1] for _ in range(count)]
    batches.close()
    return shares


def priors(shares: list[TileBatch]) -> list[tuple[str, ...]]:
    return [share.prior.keys for share in shares if share.prior is not None]


def test_each_share_has_as_many_prior_images_and_each_of_them_once_an_epoch(aerial: Path) -> None:
    cfg = TrainConfig(global_batch=7, prior=PriorConfig(shards=str(aerial)), azimuth_flip=True)
    shares = take(cfg, Cursor(), 0, SingleProcess(0, 1), 2)
    keys = priors(shares)
    names = {f"prior/{sample_key(shard, i)}" for shard, n in ((0, 4), (1, 3)) for i in range(n)}
    assert set(keys[0]) == set(keys[1]) == names
    assert keys[0] != keys[1]
    for share in shares:
        assert share.prior is not None
        assert not any(share.prior.flipped)
        assert set(share.prior.captions) == {"aerial photography"}


def test_place_among_the_prior_images_follows_from_the_step_and_ranks_share_it(
    aerial: Path,
) -> None:
    cfg = TrainConfig(global_batch=4, prior=PriorConfig(shards=str(aerial)))
    whole = priors(take(cfg, Cursor(), 0, SingleProcess(0, 1), 6))
    resumed = priors(take(cfg, Cursor(1, 2), 3, SingleProcess(0, 1), 3))
    assert resumed == whole[3:]
    halves = [priors(take(cfg, Cursor(), 0, SingleProcess(rank, 2), 6)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole


def test_micro_batches_carry_their_prior_images_behind_the_tiles(aerial: Path) -> None:
    cfg = TrainConfig(global_batch=4, prior=PriorConfig(shards=str(aerial)))
    [share] = take(cfg, Cursor(), 0, SingleProcess(0, 1), 1)
    joined = [micro.with_prior_beside() for micro in share.micro(2)]
    assert [len(one.keys) for one in joined] == [4, 4]
    assert [key for one in joined for key in one.keys[:2]] == list(share.keys)
    assert [key for one in joined for key in one.keys[2:]] == share.all_keys[4:]
    assert joined[0].images.shape == (4, 3, 8, 8)


def test_own_captions_and_another_image_on_request(aerial: Path) -> None:
    samples = PriorSamples(PriorConfig(str(aerial), image_member="sar.png", prompt=None))
    image, caption = samples.load(5, "ignored")
    assert caption == "field 11"
    assert np.allclose(image, (255 - 11) / 127.5 - 1)


def test_images_of_another_size_and_an_empty_folder_are_named(aerial: Path, tmp_path: Path) -> None:
    cfg = TrainConfig(global_batch=2, prior=PriorConfig(shards=str(aerial)))
    batches = feed_with_prior(cfg, Tiles(px=16), Cursor(), 0, SingleProcess(0, 1))
    _, share = next(batches)
    batches.close()
    with pytest.raises(ConfigError, match="are 8 x 8 px and the tiles 16 x 16"):
        share.with_prior_beside()
    with pytest.raises(DataError, match="no shards under"):
        PriorSamples(PriorConfig(shards=str(tmp_path / "nothing")))
