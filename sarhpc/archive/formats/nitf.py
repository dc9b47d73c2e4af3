"""What a NITF file holds: a SICD, a SIDD, or plain bands."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import rasterio

from sarhpc.archive.handle import readable

NITF_SUFFIXES = (".nitf", ".ntf")

NitfKind = Literal["sicd", "sidd", "plain"]


def nitf_kind(path: Path) -> NitfKind:
    """The product in the NITF at `path`, by the identifier of its first image segment.

    Raises:
        DataError: the file cannot be read.
    """
    with readable(path), rasterio.open(path) as dataset:
        kind = dataset.tags().get("NITF_IID1", "")[:4]
    if kind == "SICD":
        return "sicd"
    return "sidd" if kind == "SIDD" else "plain"
