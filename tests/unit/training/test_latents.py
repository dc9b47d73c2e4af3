"""Stored latents: those of this image by this autoencoder, or none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hpc.errors import VerificationError
from hpc.job.agreement import SingleProcess
from sarhpc.diffusion.autoencoder import new_autoencoder
from sarhpc.diffusion.config import AutoencoderShape
from sarhpc.shards.images import encode_gray8
from sarhpc.shards.loader import Cursor
from sarhpc.shards.sample import Sample, encode_json
from sarhpc.shards.samples import ShardedSamples
from sarhpc.shards.writer import write_shard
from sarhpc.training.config import TrainConfig
from sarhpc.training.denoising.data import Samples, TileBatch, feed
from sarhpc.training.denoising.latents import (
    LatentEncoder,
    StoredLatents,
    autoencoder_digest,
    encode_samples,
)

CPU = torch.device("cpu")
SHAPE = AutoencoderShape([4, 4, 8, 8], norm_groups=4, sample_size=32)


class Tiles:
    """Three tiles of random pixels, in no file."""

    def __len__(self) -> int:
        return 3

    def key(self, number: int) -> str:
        return f"{number:011d}"

    def load(self, number: int, image_member: str) -> tuple[NDArray[np.float32], str]:
        image = np.random.default_rng(number).uniform(-1, 1, (32, 32, 3))
        return image.astype(np.float32), "a tile"


class Changed(Tiles):
    """The same with one pixel changed."""

    def load(self, number: int, image_member: str) -> tuple[NDArray[np.float32], str]:
        image, caption = super().load(number, image_member)
        image[0, 0, 0] += np.float32(1e-6)
        return image, caption


def store(folder: Path, vae: Any, *, flipped: bool) -> Path:
    path = folder / f"{'both' if flipped else 'upright'}.tar"
    write_shard(path, encode_samples(Tiles(), vae, CPU, "sar.png", flipped=flipped))
    return path


@pytest.fixture
def vae() -> Any:
    return new_autoencoder(SHAPE, seed=0)


def test_what_is_stored_is_what_would_be_encoded(tmp_path: Path, vae: Any) -> None:
    stored = StoredLatents([store(tmp_path, vae, flipped=True)], autoencoder_digest(vae), "sar.png")
    encoder = LatentEncoder(vae, CPU, cache=True)
    for number in range(3):
        image, _ = Tiles().load(number, "sar.png")
        read = stored.read(Tiles(), number, flipped=True)
        for flip in (False, True):
            shown = np.ascontiguousarray((image[::-1] if flip else image).transpose(2, 0, 1))
            share = TileBatch(torch.from_numpy(shown)[None], ("",), (str(number),), (0,), (flip,))
            assert np.array_equal(read[flip], encoder.moments(share)[0].numpy())
        assert not np.allclose(read[True], read[False][:, ::-1], atol=1e-4), "not the flipped one"


def test_other_pixels_another_autoencoder_and_unknown_tiles_are_refused(
    tmp_path: Path, vae: Any
) -> None:
    path, digest = store(tmp_path, vae, flipped=False), autoencoder_digest(vae)
    StoredLatents([path], digest, "sar.png").read(Tiles(), 0, flipped=False)
    with pytest.raises(VerificationError, match="another image"):
        StoredLatents([path], digest, "sar.png").read(Changed(), 0, flipped=False)
    with pytest.raises(VerificationError, match="no latent of sample 00000000009"):
        StoredLatents([path], digest, "sar.png").read(Tiles(), 9, flipped=False)
    with pytest.raises(VerificationError, match="azimuth_flip"):
        StoredLatents([path], digest, "sar.png").read(Tiles(), 0, flipped=True)
    other = autoencoder_digest(new_autoencoder(SHAPE, seed=1))
    with pytest.raises(VerificationError, match="another autoencoder"):
        StoredLatents([path], other, "sar.png").read(Tiles(), 0, flipped=False)


@dataclass
class Sharded:
    """Tiles of a real shard, which counts what is asked of it."""

    samples: ShardedSamples
    decoded: list[int] = field(default_factory=list)
    hashed: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.samples)

    def key(self, number: int) -> str:
        return self.samples.key(number)

    def load(self, number: int, image_member: str) -> tuple[NDArray[np.float32], str]:
        self.decoded.append(number)
        return self.samples.load(number, image_member)

    def encoded(self, number: int, image_member: str) -> bytes:
        self.hashed.append(number)
        return self.samples.encoded(number, image_member)

    def caption(self, number: int) -> str:
        return self.samples.caption(number)


def shard(folder: Path, *, level: int = 0) -> Sharded:
    """Three gray tiles of 32 px."""
    path = folder / f"tiles{level}.tar"

    def samples() -> Iterator[Sample]:
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 200, (32, 32)).astype(np.uint8)
            members = {"sar.png": encode_gray8(pixels + np.uint8(level)), "txt": b"a tile"}
            yield Sample(f"{number:011d}", members)

    write_shard(path, samples())
    return Sharded(ShardedSamples([path]))


def moments_of(tiles: Samples, stored: StoredLatents, epochs: int) -> list[TileBatch]:
    """The batches of the tiles' epochs."""
    cfg = TrainConfig(global_batch=3, loader_threads=2)
    batches = feed(cfg, tiles, Cursor(), SingleProcess(), stored)
    found = [next(batches)[1] for _ in range(epochs)]
    batches.close()
    return found


def test_pixels_behind_stored_latents_are_neither_decoded_nor_hashed(
    tmp_path: Path, vae: Any
) -> None:
    tiles, latents = shard(tmp_path), tmp_path / "latents.tar"
    write_shard(latents, encode_samples(tiles, vae, CPU, "sar.png", flipped=False))
    tiles.decoded.clear()
    tiles.hashed.clear()
    digest = autoencoder_digest(vae)
    for batch in moments_of(tiles, StoredLatents([latents], digest, "sar.png"), epochs=4):
        assert batch.images is None
        assert batch.captions == ("a tile",) * 3
        assert batch.moments is not None
        assert batch.moments.shape == (3, 8, 4, 4)
    assert tiles.decoded == []
    assert sorted(tiles.hashed) == [0, 1, 2], "the file of each, once a start"
    other = shard(tmp_path, level=1)
    with pytest.raises(VerificationError, match="another image"):
        moments_of(other, StoredLatents([latents], digest, "sar.png"), epochs=1)


def test_latents_stored_before_files_had_digests_are_compared_by_pixels(
    tmp_path: Path, vae: Any
) -> None:
    tiles, latents = shard(tmp_path), tmp_path / "latents.tar"

    def former() -> Iterator[Sample]:
        """Latents as they were stored up to version 0.1."""
        for sample in encode_samples(tiles, vae, CPU, "sar.png", flipped=False):
            meta = {name: v for name, v in sample.meta.items() if name != "encoded_sha256"}
            yield sample.with_members(meta__json=encode_json(meta))

    write_shard(latents, former())
    tiles.decoded.clear()
    digest = autoencoder_digest(vae)
    batches = moments_of(tiles, StoredLatents([latents], digest, "sar.png"), epochs=4)
    assert all(batch.moments is not None for batch in batches)
    assert sorted(tiles.decoded) == [0, 1, 2], "each once a start"
    with pytest.raises(VerificationError, match="another image"):
        moments_of(shard(tmp_path, level=1), StoredLatents([latents], digest, "sar.png"), epochs=1)


def test_the_digest_of_an_autoencoder_is_of_its_numbers_and_shape(vae: Any) -> None:
    assert autoencoder_digest(vae) == autoencoder_digest(new_autoencoder(SHAPE, seed=0))
    before = autoencoder_digest(vae)
    with torch.no_grad():
        vae.quant_conv.bias[0] += 1e-3
    assert autoencoder_digest(vae) != before
