"""Training on stored latents is training on the tiles: same losses, same weights, never stale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_ranks import (
    Job,
    RandomTiles,
    contents,
    differences,
    step_folder,
    tiny_config,
    train_ranks,
)

from sarhpc.diffusion.bundle import load_autoencoder
from sarhpc.shards.writer import write_shard
from sarhpc.training.denoising.latents import encode_samples
from sarhpc.training.metrics.log import read_rows

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class OtherTiles(RandomTiles):
    """The same keys with other pixels: what a stale store would be of."""

    def load(self, number: int, image_member: str) -> tuple[Any, str]:
        image, caption = super().load(number, image_member)
        return image[:, ::-1], caption


@pytest.fixture(scope="module")
def stored(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    path = tmp_path_factory.mktemp("latents") / "000000.tar"
    vae = load_autoencoder(tiny_bundle / "vae")
    torch.set_num_threads(1)
    write_shard(
        path,
        encode_samples(RandomTiles(), vae, torch.device("cpu"), "sar.png", flipped=True),
    )
    return (path,)


def losses(job: Job) -> list[float]:
    return [row["loss"] for row in read_rows(job.root / "metrics.jsonl")]


def test_losses_and_weights_are_those_of_training_on_tiles(
    tiny_bundle: Path, tmp_path: Path, stored: tuple[Path, ...]
) -> None:
    cfg = tiny_config(max_steps=3, azimuth_flip=True)
    online = Job(tiny_bundle, tmp_path / "online", cfg)
    alone = Job(tiny_bundle, tmp_path / "alone", replace(cfg, cache_latents=True))
    from_disk = Job(tiny_bundle, tmp_path / "disk", cfg, latents=stored)
    for job in (online, alone, from_disk):
        assert train_ranks(job) == [0, 0]
    # Where each tile is encoded alone, the numbers are the same to the bit.
    assert losses(from_disk) == losses(alone)
    one, two = (contents(step_folder(job, 3)) for job in (alone, from_disk))
    assert differences(one, two) == []
    assert losses(from_disk) == pytest.approx(losses(online), rel=1e-5)


def test_a_store_of_other_pixels_stops_the_training(
    tiny_bundle: Path, tmp_path: Path, stored: tuple[Path, ...]
) -> None:
    job = Job(tiny_bundle, tmp_path, tiny_config(max_steps=1), samples=OtherTiles(), latents=stored)
    assert train_ranks(job) == [4, 4]
    assert "of another image" in (tmp_path / "error_0.txt").read_text()
    assert not step_folder(job, 1).exists()
