"""The dataset card: Markdown with the front matter that dataset hubs and `datasets` read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from sarhpc.corpus.card_gate import gate_text
from sarhpc.corpus.card_pixels import pixel_texts
from sarhpc.corpus.card_sweep import sweep_text
from sarhpc.corpus.facts import CorpusFacts, ShardFile
from sarhpc.corpus.tally import Tally

GENERATED = "generated"
"""Split of `load_dataset` that holds the whole corpus; `train` would hide that test is in it."""

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

_NOT_COMPARED = """\
The corpus was not compared with real tiles yet: `sarhpc evaluate RUN` does that, and `sarhpc
package RUN` then writes the distances into this card."""

_GEOMETRY = (
    ("pixel_m", "pixel spacing", " m"),
    ("band", "band", ""),
    ("polarization", "polarisation", ""),
    ("incidence_deg", "incidence", " degrees"),
)


def render_card(
    facts: CorpusFacts, tally: Tally, shards: Sequence[ShardFile], names: Sequence[str]
) -> str:
    """Text of the card: what the corpus holds, what made it, and code that reads it as written."""
    return _CARD.format(
        front=yaml.safe_dump(front_matter(facts, tally, names), sort_keys=False).strip(),
        name=facts.name,
        table=_table(_rows(facts, tally, shards)),
        geometry=_geometry(tally),
        **pixel_texts(facts.contract),
        labels=_labels(tally),
        sweep=sweep_text(tally),
        quality=_quality(facts, tally),
        licences=_licences(facts),
        generated=GENERATED,
    )


def front_matter(facts: CorpusFacts, tally: Tally, names: Sequence[str]) -> dict[str, Any]:
    """The YAML header: tags of hubs, and the `configs` by which `datasets` finds the images.

    The features are declared: `datasets` would guess them from the first shard, which may be empty.
    """
    patterns = sorted({(PurePosixPath(name).parent / "*.tar").as_posix() for name in names})
    features = [
        {"name": "sar.png", "dtype": "image"},
        {"name": "txt", "dtype": "string"},
        {"name": "__key__", "dtype": "string"},
    ]
    size = next((word for most, word in _SIZES if tally.samples < most), "n>1M")
    return {
        "pretty_name": facts.name,
        "license": "other",
        "license_name": "see-licences-below",
        "tags": ["synthetic", "sar", "synthetic-aperture-radar", "webdataset", "croissant"],
        "task_categories": ["text-to-image"],
        "size_categories": [size],
        "configs": [
            {
                "config_name": "default",
                "default": True,
                "data_files": [{"split": GENERATED, "path": patterns}],
            },
        ],
        "dataset_info": [{"config_name": "default", "features": features}],
    }


def _rows(
    facts: CorpusFacts, tally: Tally, shards: Sequence[ShardFile]
) -> list[tuple[str, object]]:
    half = len(tally.pairs) - tally.whole_pairs
    width, height = tally.common("width_px"), tally.common("height_px")
    size = f"{width} x {height} px" if width and height else "of several sizes"
    return [
        ("images", tally.samples),
        ("image size", size),
        ("shards", len(shards)),
        ("bytes", f"{sum(shard.bytes for shard in shards):,} in the shards, "
                  f"{tally.image_bytes:,} of them images"),
        ("distinct prompts", tally.prompts),
        *([("images of prompts longer than the model reads", tally.cut)] if tally.cut else []),
        *([("pairs with and without a target", tally.whole_pairs)] if tally.pairs else []),
        *([("pairs that lack one of the two", half)] if half else []),
        *([("images with homogeneous areas", tally.even)] if tally.even else []),
        *((f"split {name}", count) for name, count in sorted(tally.splits.items())),
        ("model (SHA-256 of the folder)", f"`{facts.model_sha}`"),
        ("configuration (fingerprint)", f"`{facts.config_fingerprint}`"),
        *facts.settings.items(),
    ]  # fmt: skip


def _geometry(tally: Tally) -> str:
    """What all images say of their geometry; what is not known is not stated."""
    said = []
    if tally.common("range_direction") == "+col":
        said.append("near range at column 0, range grows with columns")
    for name, words, unit in _GEOMETRY:
        if tally.common(name) is not None:
            said.append(f"{words} {tally.common(name)}{unit}")
    return "; " + ", ".join(said) if said else ""


def _labels(tally: Tally) -> str:
    if not tally.labels:
        return "No class is known of any image: `label` is empty."
    rows = [(name, count) for name, count in sorted(tally.labels.items())]
    without = tally.samples - sum(tally.labels.values())
    return _table([*rows, *([("no class known", without)] if without else [])], "class", "images")


def _quality(facts: CorpusFacts, tally: Tally) -> str:
    parts = []
    if facts.scores:
        rows = [f"| {_cell(s.measure)} | {s.raw:.4g} | {_cell(s.against)} |" for s in facts.scores]
        head = "| distance to real tiles | value | against real tiles among themselves |"
        parts.append("\n".join([head, "|---|---|---|", *rows]))
    else:
        parts.append(_NOT_COMPARED)
    if facts.gates:
        rows = [
            f"| {_cell(g.text)} | {'' if g.value is None else f'{g.value:.3g}'} | "
            f"{_cell(g.bounds)} | {_cell(g.verdict)} |"
            for g in facts.gates
        ]
        parts.append("\n".join(["| gate | value | bounds | verdict |", "|---|---|---|---|", *rows]))
    if tally.verdicts:
        verdicts = [(name, n) for name, n in sorted(tally.verdicts.items())]
        parts.append(_table(verdicts, "verdict on each image", "images"))
    if facts.image_gate is not None:
        parts.append(gate_text(facts.image_gate, tally))
    elif facts.rejected:
        left_out = [(f"left out: {why}", n) for why, n in sorted(facts.rejected.items())]
        parts.append(_table(left_out, "reason", "images"))
    return "\n\n".join(parts)


def _licences(facts: CorpusFacts) -> str:
    known = [
        f"- {item.of}: {item.name}" + (f" ({item.url})" if item.url else "")
        for item in facts.licences
    ]
    rule = "The images inherit the conditions of the base model and of its training data."
    if not known:
        return f"{rule}\nThe run does not state them: ask whoever made the model."
    return "\n".join([rule, "", *known])


def _table(rows: Sequence[tuple[str, object]], left: str = "", right: str = "") -> str:
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
    return "\n".join([f"| {left} | {right} |", "|---|---|", *lines])


def _cell(value: object) -> str:
    """A value as it fits into a table, on one line."""
    return " ".join(str(value).split()).replace("|", "\\|")


_CARD = """\
---
{front}
---

# {name}

**Every image here is synthetic.** A text-to-image model made it from the prompt beside it. It shows
no place on Earth, carries no geolocation, and must not be presented as a radar observation.

{table}

## What is in it

Shards are plain tar files of the WebDataset kind. Each sample has

- `sar.png`: 8-bit gray image{geometry};
{master}- `txt`: the prompt;
- `meta.json`: `synthetic: true`, prompt, seed, sampler, model and configuration hashes, and
  `channel_spread`, the mean difference between the model's three channels before they were averaged
  to gray (0 for a model that draws pure gray); `prompt_tokens_cut` where the model did not read the
  end of the prompt (text encoders of this kind read 75 tokens);
- the conditioning layer that steered the image, such as `segmentation.png`, if one did.

`index.parquet` has a row per image with every parameter that made it: key, shard, byte offset, size
and SHA-256 of the image, split, label, verdict of a gate if there was one, prompt, negative prompt,
seed, sampler, steps, guidance, model digest and the rest. `croissant.json` describes the same to
programs (Croissant 1.1 with GeoCroissant terms).

## What a pixel means

{pixels}

## Labels

{labels}

{sweep}## Splits

The index assigns each image to train, val or test by a hash of what it shares with others: its
layout, pair or conditioning layer, else its prompt and seed. So images of one layout are in one
split, and the split of an image does not depend on the size of the corpus. Shards hold all three.

## Quality

{quality}

## Licences

{licences}

## Reading it

From the folder of this card, with `webdataset` and `pyarrow`:

```python
import pyarrow.parquet
import webdataset

columns = ["key", "shard", "split"]
rows = pyarrow.parquet.read_table("index.parquet", columns=columns).to_pylist()
split = {{row["key"]: row["split"] for row in rows}}
shards = sorted({{row["shard"] for row in rows}})

for sample in webdataset.WebDataset(shards, shardshuffle=False).decode("l8"):
    if split[sample["__key__"]] == "train":
        image, prompt = sample["sar.png"], sample["txt"]  # (H, W) uint8, text
```

or with `datasets`, which takes the folder or its name on a hub:

```python
from pathlib import Path

import datasets

images = datasets.load_dataset(str(Path.cwd()), split="{generated}")  # sar.png, txt, __key__
index = datasets.Dataset.from_parquet("index.parquet")  # in the same order
```

An image can be made again, bit for bit, from its prompt, seed, batch shape and thread count with
the same model, software and kind of device (`meta.json`, `generator`).
"""
