"""Packaging a finished corpus: an index of all images and a dataset card."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hpc.errors import VerificationError
from hpc.publish import publish_json, publish_text, publishing
from sarhpc.shards.contract import CONTRACT_FILE, PixelContract, describe
from sarhpc.shards.reader import read_shard
from sarhpc.shards.sample import Sample

_COLUMNS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("channel_spread", pa.float64(), nullable=True),
        pa.field("prompt_tokens_cut", pa.int32(), nullable=False),
        pa.field("synthetic", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True)
class CorpusFacts:
    """Contents of the card beside the counts: names and hashes of the run."""

    name: str
    model_sha: str
    config_fingerprint: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Sampling settings to list: steps, guidance, scheduler and so on."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Images left out, by reason."""
    contract: PixelContract | None = None
    """What a pixel means, where the model says so."""


@dataclass(frozen=True)
class Corpus:
    """A packaged corpus: its two files and its counts."""

    index: Path
    card: Path
    samples: int
    shards: int
    prompts: int


def package_corpus(root: Path, shards: Sequence[Path], facts: CorpusFacts) -> Corpus:
    """Publish `index.parquet` and `README.md` in `root` for the finished `shards`.

    The index has one row per image: key, shard (relative to `root`), prompt, seed, SHA-256 of the
    PNG, channel spread, number of truncated tokens of its prompt, and `synthetic`, always true.
    Shards are read one at a time. With a contract it is published beside them.

    Raises:
        VerificationError: a key is repeated, or a sample is not a synthetic one of this model.
        DataError: a shard cannot be read.
    """
    keys: set[str] = set()
    prompts: set[str] = set()
    cut = 0
    index = root / "index.parquet"
    with publishing(index) as file, pq.ParquetWriter(file, _COLUMNS) as writer:
        for shard in shards:
            rows = list(_rows(shard, os.path.relpath(shard, root), facts, keys))
            prompts.update(row["prompt"] for row in rows)
            cut += sum(row["prompt_tokens_cut"] > 0 for row in rows)
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema=_COLUMNS))
    if facts.contract is not None:
        publish_json(root / CONTRACT_FILE, facts.contract.to_json())
    card = root / "README.md"
    publish_text(card, render_card(facts, len(keys), len(shards), len(prompts), cut))
    return Corpus(index, card, len(keys), len(shards), len(prompts))


def render_card(facts: CorpusFacts, samples: int, shards: int, prompts: int, cut: int = 0) -> str:
    """The dataset card, Markdown with the YAML header of dataset hubs.

    `cut` is the number of images whose prompts were truncated.
    """
    settings = [f"| {name} | {value} |" for name, value in facts.settings.items()]
    rejected = [f"| left out: {why} | {count} |" for why, count in sorted(facts.rejected.items())]
    table = [
        f"| images | {samples} |",
        f"| shards | {shards} |",
        f"| distinct prompts | {prompts} |",
        *([f"| images of prompts longer than the model reads | {cut} |"] if cut else []),
        f"| model (SHA-256 of the folder) | `{facts.model_sha}` |",
        f"| configuration (fingerprint) | `{facts.config_fingerprint}` |",
        *settings,
        *rejected,
    ]
    master, pixels = ("", _UNKNOWN_PIXELS) if facts.contract is None else _pixels(facts.contract)
    return _CARD.format(name=facts.name, table="\n".join(table), master=master, pixels=pixels)


def _pixels(contract: PixelContract) -> tuple[str, str]:
    """The line about the master, and the section on what a pixel means."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in describe(contract).items())
    return _MASTER, _PIXELS.format(rows=rows, sigma0=_SIGMA0 if contract.is_calibrated else "")


def _rows(shard: Path, name: str, facts: CorpusFacts, keys: set[str]) -> Iterator[dict[str, Any]]:
    for sample in read_shard(shard):
        meta = _checked_meta(sample, shard, facts)
        if sample.key in keys:
            raise VerificationError(
                f"key {sample.key} of {shard} is in another shard too: shard numbers repeat."
            )
        keys.add(sample.key)
        yield {
            "key": sample.key,
            "shard": name,
            "prompt": meta["prompt"],
            "seed": meta["seed"],
            "sha256": hashlib.sha256(sample.members["sar.png"]).hexdigest(),
            "channel_spread": meta.get("channel_spread"),
            "prompt_tokens_cut": meta.get("prompt_tokens_cut", 0),
            "synthetic": True,
        }


def _checked_meta(sample: Sample, shard: Path, facts: CorpusFacts) -> dict[str, Any]:
    meta = sample.meta
    if meta.get("synthetic") is not True:
        raise VerificationError(f"{shard}: sample {sample.key} is not marked synthetic.")
    for name in ("model_sha", "config_fingerprint"):
        if meta.get(name) != getattr(facts, name):
            raise VerificationError(
                f"{shard}: sample {sample.key} has {name} {meta.get(name)}, this corpus "
                f"{getattr(facts, name)}: it was made by another run."
            )
    return meta


_CARD = """\
---
pretty_name: {name}
tags:
- synthetic
- sar
- webdataset
task_categories:
- text-to-image
---

# {name}

**Every image here is synthetic.** A text-to-image model made it from the prompt beside it. It shows
no place on Earth, carries no geolocation, and must not be presented as a radar observation.

| | |
|---|---|
{table}

## What is in it

Shards are plain tar files of the WebDataset kind. Each sample has

- `sar.png`: 8-bit gray image;
{master}- `txt`: the prompt;
- `meta.json`: `synthetic: true`, prompt, seed, sampler, model and configuration hashes, and
  `channel_spread`, the mean difference between the model's three channels before they were averaged
  to gray (0 for a model that draws pure gray); `prompt_tokens_cut` where the model did not read the
  end of the prompt (text encoders of this kind read 75 tokens).

`index.parquet` lists key, shard, prompt, seed, `prompt_tokens_cut` and the SHA-256 of each
`sar.png`.

## What a pixel means

{pixels}
## Reading it

```python
import webdataset

for sample in webdataset.WebDataset("{{shards}}", shardshuffle=False).decode("l8"):
    image, prompt = sample["sar.png"], sample["txt"]
```

An image can be made again, bit for bit, from its prompt, seed, batch shape and thread count with
the same model, software and kind of device (`meta.json`, `generator`).
"""

_UNKNOWN_PIXELS = """\
Not known: the model has no contract. No gray level stands for an amplitude, and what `meta.json`
does not say of spacing, direction of range and calibration is unknown.
"""

_MASTER = "- `sar16.npy`: the same as the decoder gave it, 16 bits: code / 65535 is the level;\n"

_PIXELS = """\
By the contract of the model (`contract.json`), which follows from the tiles it was trained on. What
differed among them is a range here and null in `meta.json`.

| of the tiles | |
|---|---|
{rows}
{sigma0}"""

_SIGMA0 = """
```python
from pathlib import Path

from sarhpc.shards.contract import read_contract, sigma0_db
from sarhpc.shards.images import decode_array

level_db = sigma0_db(decode_array(sample["sar16.npy"]), read_contract(Path("this/folder")))
```
"""
