"""Rows of the index, from the shards of a corpus."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.errors import DataError, VerificationError
from sarhpc.corpus.index import json_text, require_typed
from sarhpc.corpus.splits import split_group, split_of
from sarhpc.shards.reader import ShardIndex
from sarhpc.shards.sample import decode_meta
from sarhpc.shards.tar import read_exactly

IMAGE, CAPTION, META = "sar.png", "txt", "meta.json"
_REQUIRED = {
    IMAGE: "an image; a corpus holds generated SAR images",
    CAPTION: "a caption; every image of a corpus has its prompt beside it",
    META: "metadata",
}
_AS_THEY_ARE = (
    "prompt", "seed", "channel_spread", "negative_prompt", "scheduler", "schedule", "steps",
    "guidance", "guidance_rescale", "dtype", "batch", "threads", "model_sha",
    "adapter_sha", "adapter_weight", "config_fingerprint", "generator", "pixel_m", "band",
    "polarization",
    "incidence_deg", "range_direction",
    "plane",
    "look_side",
    "calibration",
    "contract_sha",
)  # fmt: skip
"""Entries of `meta.json` with a column of their name."""
_ELSEWHERE = {
    "schema", "key", "synthetic", "prompt_tokens_cut", "labels", "label", "gate", "steered_by",
    "homogeneous_areas", "layout", "image_to_image", "adapters",
}  # fmt: skip
"""Entries that are in columns of other names, or the same everywhere."""

_OF_SWEEPS = (
    "speckle", "resolution_m", "looks", "noise_db", "noise_reference", "speckle_draw",
)  # fmt: skip
"""Entries of `sweep` with a column of their name."""

IMAGE_CODE = "image_code"
"""Entry of a row, in no column: code of the image, by which duplicates are found."""


@dataclass(frozen=True)
class Origin:
    """What the images of one corpus have in common, and the classes of their prompts."""

    model_sha: str
    config_fingerprint: str
    classes: Mapping[str, str] = field(default_factory=dict)
    """Class of a prompt, for images whose metadata state none."""


def shard_rows(shard: Path, name: str, origin: Origin) -> Iterator[dict[str, Any]]:
    """Yield the row of each sample of `shard`, which the index calls `name`; one in memory.

    Raises:
        DataError: the shard is damaged, or a sample lacks image, caption or metadata.
        VerificationError: a sample is not synthetic, or was made by another model or run.
    """
    index = ShardIndex.scan(shard)
    with shard.open("rb") as file:
        for number in range(len(index)):
            key, members = index.key(number), index.members(number)
            for required, what in _REQUIRED.items():
                if required not in members:
                    raise DataError(
                        f"sample {key} of {shard} has no {required}, {what}; make the shard again"
                    )
            meta = decode_meta(read_exactly(file, members[META], shard), key, shard)
            _require_origin(meta, key, shard, origin)
            image = read_exactly(file, members[IMAGE], shard)
            width, height = _png_size(image, key, shard)
            row = {
                **_row(meta, origin),
                "key": key,
                "shard": name,
                "sha256": hashlib.sha256(image).hexdigest(),
                "offset": members[IMAGE].offset,
                "size": members[IMAGE].size,
                "width_px": width,
                "height_px": height,
            }
            require_typed(row, f"sample {key} of {shard}")
            yield row


def _row(meta: Mapping[str, Any], origin: Origin) -> dict[str, Any]:
    """The columns that follow from the metadata."""
    group = split_group(meta)
    labels = meta.get("labels") if isinstance(meta.get("labels"), Mapping) else {}
    assert isinstance(labels, Mapping)
    prompt = meta.get("prompt")
    label = meta.get("label") or labels.get("class") or origin.classes.get(str(prompt))
    gate = meta.get("gate")
    gate = gate if isinstance(gate, Mapping) else {"verdict": gate}
    steered = meta.get("steered_by")
    steered = steered if isinstance(steered, Mapping) else {}
    swept = meta.get("sweep")
    swept = swept if isinstance(swept, Mapping) else {}
    begun = meta.get("image_to_image")
    begun = begun if isinstance(begun, Mapping) else {}
    covered = {*_AS_THEY_ARE, *_ELSEWHERE}
    return {
        **{name: meta.get(name) for name in _AS_THEY_ARE},
        "prompt_tokens_cut": meta.get("prompt_tokens_cut", 0),
        "synthetic": True,
        "split": split_of(group),
        "split_group": group,
        "label": _text(label),
        "labels": json_text(labels),
        "pair_id": _text(labels.get("pair_id")),
        "target": _text(labels.get("target")),
        "verdict": gate.get("verdict"),
        "verdict_reasons": json_text(gate.get("reasons")),
        "verdict_values": json_text(gate.get("values")),
        "draw": gate.get("draw"),
        "homogeneous_areas": json_text(meta.get("homogeneous_areas")),
        "adapters": json_text(meta.get("adapters")),
        IMAGE_CODE: gate.get("code"),
        "layout": meta.get("layout"),
        **{name: swept.get(name) for name in _OF_SWEEPS},
        "steered_layer": steered.get("layer"),
        "steered_tile": steered.get("tile"),
        "steered_sha256": steered.get("sha256"),
        "steered_scale": steered.get("scale"),
        "source_image": begun.get("image"),
        "source_sha256": begun.get("sha256"),
        "source_strength": begun.get("strength"),
        "parameters": json_text(
            {k: v for k, v in meta.items() if k not in covered} | _further_steering(steered)
        ),
    }


def _further_steering(steered: Mapping[str, Any]) -> dict[str, Any]:
    """What steered an image where the columns do not say all of it: drawings, several controls."""
    columns = {"layer", "tile", "sha256", "scale"}
    return {"steered_by": dict(steered)} if set(steered) - columns else {}


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _require_origin(meta: Mapping[str, Any], key: str, shard: Path, origin: Origin) -> None:
    if meta.get("synthetic") is not True:
        raise VerificationError(f"{shard}: sample {key} is not marked synthetic.")
    for name in ("model_sha", "config_fingerprint"):
        if meta.get(name) != getattr(origin, name):
            raise VerificationError(
                f"{shard}: sample {key} has {name} {meta.get(name)}, this corpus "
                f"{getattr(origin, name)}: it was made by another run."
            )


def _png_size(image: bytes, key: str, shard: Path) -> tuple[int, int]:
    """Width and height, px, from the header of a PNG."""
    if image[:8] != b"\x89PNG\r\n\x1a\n" or len(image) < 24:
        raise DataError(f"{IMAGE} of sample {key} in {shard} is no PNG; make the shard again")
    width, height = struct.unpack(">II", image[16:24])
    return int(width), int(height)
