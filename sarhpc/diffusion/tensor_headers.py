"""Names and shapes of the tensors in a safetensors file, without reading or importing more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from hpc.errors import DataError

Shape = tuple[int, ...]
_LONGEST = 100_000_000
"""Bytes of the longest header that safetensors itself accepts."""


def tensor_shapes(file: Path) -> Mapping[str, Shape]:
    """Shape of each tensor in `file`, by name.

    Raises:
        DataError: it cannot be read, is not a safetensors file, or is torn.
    """
    try:
        return _shapes(file)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(
            f"{file} is not a whole safetensors file ({error}): copy or download it again."
        ) from error


def _shapes(file: Path) -> dict[str, Shape]:
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 1 < length <= min(_LONGEST, size - 8):
            raise ValueError("its header is longer than the file")
        header = json.loads(opened.read(length))
    header.pop("__metadata__", None)
    last = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if 8 + length + last > size:
        raise ValueError("its end is missing")
    return {name: tuple(entry["shape"]) for name, entry in header.items()}
