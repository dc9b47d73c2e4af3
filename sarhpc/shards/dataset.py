"""Shards as a `webdataset.WebDataset`, with members decoded by this project's readers.

WebDataset's own decoder unpickles members that ask for it; these are left as bytes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import webdataset

from sarhpc.shards.images import decode_array, decode_gray8, decode_rgb8
from sarhpc.shards.sample import decode_meta

Dataset: TypeAlias = webdataset.WebDataset

_COLOUR_TYPE = 25
"""Offset in a PNG of the byte that says gray (0) or RGB (2)."""


def shard_dataset(paths: Sequence[Path], *, decode: bool = True) -> Dataset:
    """The samples of these shards, in order: dictionaries of members by extension, and `__key__`.

    PNG members are arrays uint8 (H, W) or (H, W, 3), `npy` members arrays, JSON members values and
    `txt` members text; anything else is bytes, as everything is without `decode`.
    """
    # A list is neither expanded as a pattern nor read as a command, as a text would be.
    files = [str(path.absolute()) for path in paths]
    dataset = webdataset.WebDataset(files, shardshuffle=False)
    return dataset.map(decoded) if decode else dataset


def decoded(sample: dict[str, Any]) -> dict[str, Any]:
    """The sample of WebDataset with its members decoded.

    Raises:
        DataError: a member is damaged.
    """
    key = str(sample.get("__key__"))
    return {name: _member(name, data, key) for name, data in sample.items()}


def _member(name: str, data: Any, key: str) -> Any:
    kind = name.rpartition(".")[2]
    if name.startswith("__") or not isinstance(data, bytes):
        return data
    if kind == "png":
        colour = data[_COLOUR_TYPE] if len(data) > _COLOUR_TYPE else 0
        return {0: decode_gray8, 2: decode_rgb8}.get(colour, _unchanged)(data)
    if kind == "npy":
        return decode_array(data)
    if kind == "json":
        return decode_meta(data, key)
    return data.decode("utf-8", errors="replace") if kind == "txt" else data


def _unchanged(data: bytes) -> bytes:
    return data
