"""The Parquet index of a corpus: one row per image, with everything that made it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from hpc.errors import DataError
from hpc.publish import publishing

ROWS_PER_GROUP = 8192
INDEX = "index.parquet"


def _column(name: str, kind: pa.DataType, *, required: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=not required)


COLUMNS = pa.schema(
    [
        _column("key", pa.string(), required=True),
        _column("shard", pa.string(), required=True),
        _column("prompt", pa.string(), required=True),
        _column("seed", pa.int64(), required=True),
        _column("sha256", pa.string(), required=True),
        _column("channel_spread", pa.float64()),
        _column("prompt_tokens_cut", pa.int32(), required=True),
        _column("synthetic", pa.bool_(), required=True),
        # Up to here as in version 0.1, from here added.
        _column("offset", pa.int64()),
        _column("size", pa.int64()),
        _column("width_px", pa.int32()),
        _column("height_px", pa.int32()),
        _column("split", pa.string()),
        _column("split_group", pa.string()),
        _column("label", pa.string()),
        _column("labels", pa.string()),
        _column("pair_id", pa.string()),
        _column("target", pa.string()),
        _column("verdict", pa.string()),
        _column("verdict_reasons", pa.string()),
        _column("verdict_values", pa.string()),
        _column("draw", pa.int32()),
        _column("near_duplicate_of", pa.string()),
        _column("homogeneous_areas", pa.string()),
        _column("negative_prompt", pa.string()),
        _column("scheduler", pa.string()),
        _column("schedule", pa.string()),
        _column("steps", pa.int32()),
        _column("guidance", pa.float64()),
        _column("guidance_rescale", pa.float64()),
        _column("dtype", pa.string()),
        _column("batch", pa.int32()),
        _column("threads", pa.int32()),
        _column("model_sha", pa.string()),
        _column("adapter_sha", pa.string()),
        _column("adapter_weight", pa.float64()),
        _column("adapters", pa.string()),
        _column("config_fingerprint", pa.string()),
        _column("generator", pa.string()),
        _column("pixel_m", pa.float64()),
        _column("band", pa.string()),
        _column("polarization", pa.string()),
        _column("incidence_deg", pa.float64()),
        _column("range_direction", pa.string()),
        _column("plane", pa.string()),
        _column("look_side", pa.string()),
        _column("calibration", pa.string()),
        _column("contract_sha", pa.string()),
        _column("layout", pa.string()),
        _column("speckle", pa.string()),
        _column("resolution_m", pa.float64()),
        _column("looks", pa.int32()),
        _column("noise_db", pa.float64()),
        _column("noise_reference", pa.string()),
        _column("speckle_draw", pa.int32()),
        _column("steered_layer", pa.string()),
        _column("steered_tile", pa.string()),
        _column("steered_sha256", pa.string()),
        _column("steered_scale", pa.float64()),
        _column("source_image", pa.string()),
        _column("source_sha256", pa.string()),
        _column("source_strength", pa.float64()),
        _column("parameters", pa.string()),
    ]
)
"""Columns of the index; those of version 0.1 come first, under their names."""

DESCRIPTIONS: Mapping[str, str] = {
    "key": "key of the sample in its shard, unique in the corpus",
    "shard": "tar that holds the sample, relative to the folder of the index",
    "sha256": "SHA-256 of the image as it is in the tar",
    "offset": "first byte of the image in the tar",
    "size": "bytes of the image",
    "split": "train, val or test; images of one split_group are in the same split",
    "label": "class that the image was asked to show",
    "labels": "further labels, a JSON object",
    "pair_id": "pair of one layout with and without a target, where the plan asked for pairs",
    "target": "target that the image was asked to show",
    "verdict": "verdict of the gate that judged the image",
    "verdict_reasons": "reasons of the verdict, a JSON list",
    "verdict_values": "values that the gate measured, a JSON object",
    "draw": "images of the same request that were quarantined before",
    "near_duplicate_of": "key of an image before it that it repeats, where the gate compared them",
    "homogeneous_areas": "squares in which only speckle varies, a JSON list, where asked for",
    "layout": "layout of a sweep: images of one layout show the same ground by other sensors",
    "speckle": "model, or drawn by the sensor model of a sweep",
    "resolution_m": "width of the impulse response of the sensor model at half power, m",
    "looks": "independent looks that the sensor model averaged",
    "noise_db": "noise-equivalent sigma0 that the sensor model added, dB; null for none",
    "noise_reference": "what noise_db is relative to: sigma0, or code 255",
    "speckle_draw": "number of the draw of speckle and noise, from 0",
    "scheduler": "sampler",
    "schedule": "noise levels of sampling, where not those of the model's folder",
    "adapters": "digest and weight of each of several adapters, a JSON list",
    "pixel_m": "pixel spacing of the images that the model was trained on, m",
    "parameters": "every other entry of meta.json, a JSON object",
}
"""What a column holds, where its name does not say it."""


def write_index(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Publish `rows` as the index `path` and return their number; equal rows give equal bytes.

    `ROWS_PER_GROUP` rows are held in memory at a time.

    Raises:
        TransientError: the disk or a quota is full; nothing was published.
        Exception: whatever `rows` raises; then nothing was published.
    """
    remaining, count = iter(rows), 0
    with publishing(path) as file, _writer(file) as writer:
        while part := list(itertools.islice(remaining, ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(part, schema=COLUMNS))
            count += len(part)
    return count


def _writer(file: IO[bytes]) -> pq.ParquetWriter:
    return pq.ParquetWriter(file, COLUMNS, compression="zstd", write_page_checksum=True)


def require_typed(row: Mapping[str, Any], where: str) -> None:
    """Raise DataError unless each value of a row is of the type of its column.

    Args:
        row: with the columns of the index.
        where: what it describes, for the message.
    """
    for column in COLUMNS:
        value = row.get(column.name)
        if value is None and column.nullable:
            continue
        if not _fits(value, column.type):
            raise DataError(
                f"{where} has {column.name} {value!r:.80}, which is no {column.type}: make its "
                "shard again"
            )


def _fits(value: Any, kind: pa.DataType) -> bool:
    if pa.types.is_boolean(kind) or isinstance(value, bool):
        return pa.types.is_boolean(kind) and isinstance(value, bool)
    if pa.types.is_integer(kind):
        return isinstance(value, int) and -(1 << (kind.bit_width - 1)) <= value < 1 << (
            kind.bit_width - 1
        )
    if pa.types.is_floating(kind):
        return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 53)
    return isinstance(value, str)


def read_index(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of an index in order; columns that version 0.1 did not write are None.

    Raises:
        DataError: the index is missing, damaged, or lacks columns that every version writes.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            known = [name for name in COLUMNS.names if name in file.schema_arrow.names]
            missing = {f.name for f in COLUMNS if not f.nullable} - set(known)
            if missing:
                raise DataError(
                    f"{path} has no column {', '.join(sorted(missing))}: it is no index of a corpus"
                )
            for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, columns=known):
                for row in batch.to_pylist():
                    yield {name: row.get(name) for name in COLUMNS.names}
    except (OSError, ValueError, MemoryError, pa.ArrowException) as error:
        raise DataError(
            f"cannot read the index {path} ({error}); `sarhpc package RUN` writes it again"
        ) from error


def json_text(value: Any) -> str | None:
    """A value as canonical JSON for a text column; None for nothing."""
    if value is None or value in ({}, []):
        return None
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
