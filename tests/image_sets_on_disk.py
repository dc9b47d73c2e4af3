"""Sets of images on disk as the tests of the evaluation need them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from sarhpc.shards.images import encode_array, encode_gray8
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.writer import write_shard

Meta = dict[str, Any] | Callable[[int], dict[str, Any]]
SCALE = 1 / 1000


def speckle_codes(seed: int, count: int, px: int = 64, gain: float = 1.0) -> np.ndarray:
    """Tiles (N, H, W) uint8 of single-look speckle on levels that differ from tile to tile."""
    return codes_of(speckle_amplitude(seed, count, px, gain))


def speckle_amplitude(seed: int, count: int, px: int = 64, gain: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    field = rng.standard_normal((2, count, px, px))
    # A band of half the sampling frequency: neighbouring pixels are correlated.
    kept = np.abs(np.fft.fftfreq(px)) < 0.25
    spectrum = np.fft.fft2(field[0] + 1j * field[1]) * np.outer(kept, kept)
    # Levels are spread alike in every set: by quantiles, in a random order.
    quantiles = [NormalDist(0.0, 1.5).inv_cdf((n + 0.5) / count) for n in range(count)]
    level = 10 ** (rng.permutation(quantiles)[:, None, None] / 20)
    return 0.25 * gain * level * np.abs(np.fft.ifft2(spectrum))


def codes_of(amplitude: np.ndarray) -> np.ndarray:
    return np.round(255 * np.clip(amplitude, 0, 1)).astype(np.uint8)


def shard_of(
    path: Path,
    tiles: Sequence[np.ndarray],
    meta: Meta,
    masters: Sequence[np.ndarray] | None = None,
) -> Path:
    """A shard of these 8-bit tiles; `masters` are linear amplitudes of the same tiles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = []
    for number, tile in enumerate(tiles):
        facts = dict(meta(number) if callable(meta) else meta)
        members = {"sar.png": encode_gray8(tile)}
        if masters is not None:
            codes = np.rint(masters[number] / SCALE).astype(np.uint16)
            members["sar16.npy"] = encode_array(codes)
            law = {"mode": "mu+3sigma", "mu": 0.3, "sigma": 0.2, "top": 1.0}
            facts |= {"master_scale": SCALE, "normalisation": law}
        members["meta.json"] = encode_json(facts)
        samples.append(Sample(sample_key(int(path.stem), number), members))
    write_shard(path, samples)
    return path


def real_set(root: Path, tiles: int = 48, groups: int = 12, **meta: Any) -> Path:
    """A folder of two shards whose tiles are of `groups` scenes in turn."""
    codes = speckle_codes(1, tiles)
    half = tiles // 2
    for part in range(2):
        shard_of(
            root / f"{part:06d}.tar",
            codes[part * half : (part + 1) * half],
            lambda n: {"scene_id": f"s{n % groups}", "split": "val", "pixel_m": 0.5} | meta,
        )
    return root


def synthetic_set(root: Path, tiles: int = 16, seed: int = 2, **meta: Any) -> Path:
    """A folder of one shard of generated tiles, as good as real ones."""
    facts = {"synthetic": True, "pixel_m": 0.5} | meta
    shard_of(root / "000000.tar", speckle_codes(seed, tiles), facts)
    return root
