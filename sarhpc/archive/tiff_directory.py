"""The first directory of a TIFF file, without GDAL: what a tag declares, before it is parsed."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

GDAL_METADATA = 42112
"""Tag with an XML text of names and values. GDAL compares each name with all before it."""

_MOST_ENTRIES = 1 << 16
_LONG_TYPES = {3: 2, 8: 2, 4: 4, 9: 4, 11: 4, 13: 4, 5: 8, 10: 8, 12: 8, 16: 8, 17: 8, 18: 8}
"""Bytes of a value, by type, where it is not one."""


def bytes_of_tag(path: Path, tag: int) -> int:
    """Bytes that the values of `tag` have, as declared; 0 without it, or if this is no TIFF.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        try:
            return _declared(file, tag)
        except (struct.error, OverflowError, KeyError):  # cut short, or no TIFF: GDAL tells
            return 0


def _declared(file: BinaryIO, tag: int) -> int:
    order = {b"II": "<", b"MM": ">"}[file.read(2)]
    [version] = struct.unpack(f"{order}H", file.read(2))
    is_big = version == 43
    if is_big:
        file.seek(4, 1)
    offset, counter, entry = ("Q", "Q", "HHQQ") if is_big else ("I", "H", "HHII")
    [start] = struct.unpack(order + offset, file.read(struct.calcsize(f"={offset}")))
    file.seek(start)
    [entries] = struct.unpack(order + counter, file.read(struct.calcsize(f"={counter}")))
    size = struct.calcsize(f"={entry}")
    table = file.read(size * min(entries, _MOST_ENTRIES))
    found = struct.iter_unpack(f"{order}{entry}", table[: len(table) // size * size])
    return max((n * _LONG_TYPES.get(kind, 1) for number, kind, n, _ in found if number == tag),
               default=0)  # fmt: skip
