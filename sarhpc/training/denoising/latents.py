"""Latents of tiles: the frozen autoencoder, run every time, once a tile, or once for all runs.

Mean and log-variance are kept, never a sample of them, so that every epoch draws its own. What
is on disk is keyed by the image, its file and its pixels, and by the autoencoder: of another image
or by another autoencoder it is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpc.errors import VerificationError
from sarhpc.shards.images import decode_array, encode_array
from sarhpc.shards.sample import Sample, encode_json
from sarhpc.shards.samples import ShardedSamples
from sarhpc.shards.transfer import to_device
from sarhpc.training.denoising.data import EncodedSamples, Samples, TileBatch

SCHEMA = "sarhpc.latents/1"
_MEMBERS = {False: "moments.npy", True: "moments_flipped.npy"}
"""Flipped along azimuth or not -> member; the latent of a flipped image is not the flipped one."""


class LatentEncoder:
    """Mean and log-variance of each image's latent, so that every epoch draws its own.

    With the cache a tile is encoded alone, never beside others: the numbers then do not depend on
    which tiles were still unknown, and a resumed run with an empty cache repeats the bits. Stored
    latents were encoded alone too.
    """

    def __init__(self, vae: Any, device: torch.device, *, cache: bool) -> None:
        self._vae = vae.to(device).eval().requires_grad_(False)
        self._device = device
        self._known: dict[tuple[str, bool], Tensor] | None = {} if cache else None

    def moments(self, batch: TileBatch) -> Tensor:
        """Mean and log-variance stacked along the channels, (B, 8, h, w) float32 on the device."""
        known = self.known_moments(batch)
        if known is not None:
            return known.to(self._device)
        assert batch.images is not None
        return self.encode(batch.images)

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return int(self._vae.config.latent_channels)

    @property
    def reduction(self) -> int:
        """Side of an image over that of its latent."""
        return int(2 ** (len(self._vae.config.block_out_channels) - 1))

    @torch.no_grad()
    def known_moments(self, batch: TileBatch) -> Tensor | None:
        """The same on the CPU, stored or cached, where what is not known yet is encoded first.

        None where images are encoded every time.
        """
        if batch.moments is not None:
            return batch.moments
        if self._known is None:
            return None
        found = []
        assert batch.images is not None
        for row, flipped in enumerate(batch.flipped):
            name = (batch.keys[row], flipped)
            if name not in self._known:
                self._known[name] = self.encode(batch.images[row : row + 1]).cpu()
            found.append(self._known[name])
        return torch.cat(found)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """The same of images (B, 3, H, W) in [-1, 1], now."""
        [images] = to_device([images], self._device)
        latents = self._vae.encode(images).latent_dist
        return torch.cat([latents.mean, latents.logvar], dim=1)


def autoencoder_digest(vae: Any) -> str:
    """SHA-256 over the configuration and the weights of an autoencoder, wherever it lies."""
    known = {name: value for name, value in vae.config.items() if not name.startswith("_")}
    digest = hashlib.sha256(repr(sorted(known.items())).encode())
    for name, tensor in sorted(vae.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def image_digest(image: NDArray[np.float32]) -> str:
    """SHA-256 over the pixels (H, W, 3) of an image as training sees them."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def encode_samples(
    samples: Samples, vae: Any, device: torch.device, image_member: str, *, flipped: bool
) -> Iterator[Sample]:
    """Yield the latents of every sample, under its key; with those of flipped images if asked.

    Each image is encoded alone, so that no latent depends on another image.
    """
    encoded_by, encoder = autoencoder_digest(vae), LatentEncoder(vae, device, cache=False)
    for number in range(len(samples)):
        image, _ = samples.load(number, image_member)
        members = {
            _MEMBERS[flip]: encode_array(_moments(encoder, image[::-1] if flip else image))
            for flip in ([False, True] if flipped else [False])
        }
        meta = {
            "schema": SCHEMA,
            "key": samples.key(number),
            "image_sha256": image_digest(image),
            **_encoded_digest(samples, number, image_member),
            "autoencoder_sha256": encoded_by,
            "image_member": image_member,
        }
        yield Sample(samples.key(number), {**members, "meta.json": encode_json(meta)})


def _encoded_digest(samples: Samples, number: int, image_member: str) -> dict[str, str]:
    """SHA-256 over the image as its shard has it, by which it is known without being decoded."""
    if not isinstance(samples, EncodedSamples):
        return {}
    data = samples.encoded(number, image_member)
    return {"encoded_sha256": hashlib.sha256(data).hexdigest()}


def _moments(encoder: LatentEncoder, image: NDArray[np.float32]) -> NDArray[np.float32]:
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    moments: NDArray[np.float32] = encoder.encode(tensor[None])[0].cpu().numpy()
    return moments


class StoredLatents:
    """Latents that were encoded before, by key; safe to read from several threads."""

    def __init__(self, shards: Sequence[Path], autoencoder: str, image_member: str) -> None:
        """Index `shards`, for a training on this image whose autoencoder has this digest.

        Raises:
            DataError: a shard is missing or damaged.
        """
        self._samples = ShardedSamples(shards)
        self._numbers = {self._samples.key(n): n for n in range(len(self._samples))}
        self._autoencoder, self._image_member = autoencoder, image_member
        self._compared: set[str] = set()

    def read(
        self, samples: Samples, number: int, *, flipped: bool
    ) -> dict[bool, NDArray[np.float32]]:
        """Mean and log-variance (8, h, w) of a sample, and of it flipped if asked.

        The first time that a sample is read its latent is compared with its image: by the digest of
        the image's file, which is not decoded, or of its pixels where the latent has no other.

        Args:
            samples: what is trained on.
            number: of the sample.
            flipped: whether those of the flipped image are wanted too.

        Raises:
            VerificationError: there are none, or they are of another image or by another
                autoencoder.
        """
        key = samples.key(number)
        if key not in self._numbers:
            raise VerificationError(f"no latent of sample {key} is stored; run `sarhpc encode`")
        wanted = {flip: _MEMBERS[flip] for flip in ([False, True] if flipped else [False])}
        own = self._numbers[key]
        if key not in self._compared:
            self._compare(samples, number, self._samples[own])
            self._compared.add(key)
        found = {flip: self._samples.member(own, member) for flip, member in wanted.items()}
        absent = [wanted[flip] for flip, data in found.items() if data is None]
        if absent:
            raise VerificationError(
                f"the stored latent of sample {key} has no {absent[0]}; encode in a new run, "
                "where train.azimuth_flip is set"
            )
        return {flip: decode_array(data) for flip, data in found.items() if data is not None}

    def _compare(self, samples: Samples, number: int, stored: Sample) -> None:
        """Raise VerificationError unless a stored latent is of this image."""
        key, meta = stored.key, stored.meta
        _require_same(key, "autoencoder", meta["autoencoder_sha256"], self._autoencoder)
        now = _encoded_digest(samples, number, self._image_member)
        if "encoded_sha256" in meta and now:
            _require_same(key, "image", meta["encoded_sha256"], now["encoded_sha256"])
        else:
            image, _ = samples.load(number, self._image_member)
            _require_same(key, "image", meta["image_sha256"], image_digest(image))


def _require_same(key: str, what: str, stored: str, now: str) -> None:
    if stored != now:
        raise VerificationError(
            f"the stored latent of sample {key} is of another {what} ({stored[:16]}, now "
            f"{now[:16]}); encode again in a new run, or train without `encode`"
        )
