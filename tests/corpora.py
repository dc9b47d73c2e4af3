"""Small corpora on disk, packaged as `generate` leaves them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sarhpc.corpus.facts import CorpusFacts, ShardFile
from sarhpc.corpus.packaging import Corpus, package_corpus
from sarhpc.shards.images import encode_gray8
from sarhpc.shards.sample import SAMPLE_SCHEMA, Sample, encode_json, sample_key
from sarhpc.shards.writer import write_shard

FACTS = CorpusFacts(
    name="Toy corpus",
    model_sha="m1",
    config_fingerprint="c1",
    settings={"steps": 20, "scheduler": "ddim"},
    rejected={"not_finite": 3},
)


def generated(shard: int, index: int, **changes: object) -> Sample:
    """A sample with the metadata that the sampler writes."""
    key = sample_key(shard, index)
    prompt = f"A SAR image of a river {shard} {index}"
    meta = {
        "schema": SAMPLE_SCHEMA,
        "key": key,
        "synthetic": True,
        "prompt": prompt,
        "negative_prompt": "",
        "seed": 2**63 - 1 - index,
        "steps": 20,
        "guidance": 7.5,
        "scheduler": "ddim",
        "dtype": "float32",
        "batch": 4,
        "threads": 1,
        "model_sha": "m1",
        "config_fingerprint": "c1",
        "generator": "sarhpc-0 diffusers-0 torch-0 cpu",
        "channel_spread": 0.25,
        "pixel_m": 0.35,
        "range_direction": "+col",
        **changes,
    }
    pixels = np.random.default_rng([shard, index]).integers(0, 256, (16, 24), np.uint8)
    members = {"sar.png": encode_gray8(pixels), "txt": str(meta["prompt"]).encode()}
    return Sample(key, {**members, "meta.json": encode_json(meta)})


def shards_of(root: Path, *shards: Iterable[Sample]) -> list[ShardFile]:
    """The shards, written to `root`."""
    files = []
    for number, samples in enumerate(shards):
        path = root / f"{number:06d}.tar"
        made = write_shard(path, samples)
        files.append(ShardFile(path, made.bytes, made.sha256))
    return files


def corpus_of(root: Path, *shards: Sequence[Sample], facts: CorpusFacts = FACTS) -> Corpus:
    """The corpus of these shards, packaged in `root`."""
    return package_corpus(root, shards_of(root, *shards), facts)
