"""Stored latents: those of this image by this autoencoder, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hpc.errors import VerificationError
from sarhpc.diffusion.autoencoder import new_autoencoder
from sarhpc.diffusion.config import AutoencoderShape
from sarhpc.shards.writer import write_shard
from sarhpc.training.denoising.data import TileBatch
from sarhpc.training.denoising.latents import (
    LatentEncoder,
    StoredLatents,
    autoencoder_digest,
    encode_samples,
)

CPU = torch.device("cpu")
SHAPE = AutoencoderShape([4, 4, 8, 8], norm_groups=4, sample_size=32)


class Tiles:
    """Three tiles of random pixels."""

    def __len__(self) -> int:
        return 3

    def key(self, number: int) -> str:
        return f"{number:011d}"

    def load(self, number: int, image_member: str) -> tuple[NDArray[np.float32], str]:
        image = np.random.default_rng(number).uniform(-1, 1, (32, 32, 3))
        return image.astype(np.float32), "a tile"


def store(folder: Path, vae: Any, *, flipped: bool) -> Path:
    path = folder / f"{'both' if flipped else 'upright'}.tar"
    write_shard(path, encode_samples(Tiles(), vae, CPU, "sar.png", flipped=flipped))
    return path


@pytest.fixture
def vae() -> Any:
    return new_autoencoder(SHAPE, seed=0)


def test_what_is_stored_is_what_would_be_encoded(tmp_path: Path, vae: Any) -> None:
    stored = StoredLatents([store(tmp_path, vae, flipped=True)], autoencoder_digest(vae))
    encoder = LatentEncoder(vae, CPU, cache=True)
    for number in range(3):
        image, _ = Tiles().load(number, "sar.png")
        read = stored.read(Tiles().key(number), image, flipped=True)
        for flip in (False, True):
            shown = np.ascontiguousarray((image[::-1] if flip else image).transpose(2, 0, 1))
            share = TileBatch(torch.from_numpy(shown)[None], ("",), (str(number),), (0,), (flip,))
            assert np.array_equal(read[flip], encoder.moments(share)[0].numpy())
        assert not np.allclose(read[True], read[False][:, ::-1], atol=1e-4), "not the flipped one"


def test_other_pixels_another_autoencoder_and_unknown_tiles_are_refused(
    tmp_path: Path, vae: Any
) -> None:
    path = store(tmp_path, vae, flipped=False)
    image, _ = Tiles().load(0, "sar.png")
    stored = StoredLatents([path], autoencoder_digest(vae))
    stored.read(Tiles().key(0), image, flipped=False)
    changed = image.copy()
    changed[0, 0, 0] += np.float32(1e-6)
    with pytest.raises(VerificationError, match="another image"):
        stored.read(Tiles().key(0), changed, flipped=False)
    with pytest.raises(VerificationError, match="no latent of sample 00000000009"):
        stored.read("00000000009", image, flipped=False)
    with pytest.raises(VerificationError, match="azimuth_flip"):
        stored.read(Tiles().key(0), image, flipped=True)
    other = autoencoder_digest(new_autoencoder(SHAPE, seed=1))
    with pytest.raises(VerificationError, match="another autoencoder"):
        StoredLatents([path], other).read(Tiles().key(0), image, flipped=False)


def test_the_digest_of_an_autoencoder_is_of_its_numbers_and_shape(vae: Any) -> None:
    assert autoencoder_digest(vae) == autoencoder_digest(new_autoencoder(SHAPE, seed=0))
    before = autoencoder_digest(vae)
    with torch.no_grad():
        vae.quant_conv.bias[0] += 1e-3
    assert autoencoder_digest(vae) != before
