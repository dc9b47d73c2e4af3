"""NITF: which product a file holds, and plain bands without SICD or SIDD metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sarhpc.archive.formats.declared import UndeclaredError
from sarhpc.archive.formats.format import Format, Role
from sarhpc.archive.formats.geotiff.content import raster_properties
from sarhpc.archive.formats.geotiff.reader import GeoTiffReader
from sarhpc.archive.raster_files import opened_raster

NITF_SUFFIXES = (".nitf", ".ntf")

NitfKind = Literal["sicd", "sidd", "plain"]


def nitf_kind(path: Path) -> NitfKind:
    """The product in the NITF at `path`, by the identifier of its first image segment.

    Raises:
        DataError: the file cannot be read.
    """
    with opened_raster(path) as dataset:
        kind = dataset.tags().get("NITF_IID1", "")[:4]
    if kind == "SICD":
        return "sicd"
    return "sidd" if kind == "SIDD" else "plain"


def _role(path: Path) -> Role:
    """SAR for a SICD or SIDD, declared as plain bands; plain bands have to be declared.

    Raises:
        DataError: the file holds neither.
    """
    if nitf_kind(path) == "plain":
        raise UndeclaredError(
            "NITF without SICD metadata; if it is a SAR image declare role: sar and its quantity",
            role="sar",
            quantity="amplitude",
        )
    return "sar"


FORMAT = Format(
    name="NITF",
    suffixes=NITF_SUFFIXES,
    properties=raster_properties,
    open=GeoTiffReader,
    role=_role,
)
