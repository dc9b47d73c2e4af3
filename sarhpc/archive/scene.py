"""Scenes: SAR products of the archive, and the interface between readers and tiling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.response import AxisResponse

AS_FORMED = "sarhpc:as_formed"
"""Property of a scene that is to be opened in the plane in which it was formed: not rectified."""

RangeDirection = Literal["+col", "-col", "+row", "-row"]
"""Image axis along which slant range grows, as stored: `+col` = near range at column 0."""

Affine6 = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): x = a*col + b*row + c, y = d*col + e*row + f of pixel corners."""


class PixelPlacement(Protocol):
    """Position of the pixels of a scene that no single affine describes."""

    def to_map(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map coordinates (..., 2) as (x, y) of pixel corners (..., 2) as (col, row)."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Model and errors for the metadata, as plain JSON values."""
        ...


class LocalAcquisition(Protocol):
    """Properties of an acquisition that vary within a scene."""

    def at(self, row: float, col: float) -> dict[str, float]:
        """Entries of tile metadata at a stored pixel: `incidence_deg`, `noise_floor_db`."""
        ...


@dataclass(frozen=True)
class Scene:
    """One STAC Item: its files, and properties of its acquisition.

    `assets` maps roles to files: `sar` always (complex or amplitude), and where they exist
    `optical`, `label`, `height`, `shadow`, `layover`, `incidence`. `properties` are the item's own.
    """

    id: str
    assets: Mapping[str, Path]
    properties: Mapping[str, Any] = field(default_factory=dict)
    bbox: tuple[float, float, float, float] | None = None
    """West, south, east, north in degrees WGS84; None for a scene without georeference."""

    @property
    def datetime(self) -> str | None:
        """Acquisition time, RFC 3339."""
        return self.properties.get("datetime")

    @property
    def band(self) -> str | None:
        """Radar band letter (`sar:frequency_band`)."""
        return self.properties.get("sar:frequency_band")

    @property
    def incidence_deg(self) -> float | None:
        """Incidence angle at scene centre, degrees."""
        return self.properties.get("view:incidence_angle")


class Archive(Protocol):
    """What tiling needs of an archive; an institute's own API plugs in by implementing it."""

    def search(
        self,
        *,
        band: str | None = None,
        bbox: tuple[float, float, float, float] | None = None,
        datetime: str | None = None,
        ids: frozenset[str] | None = None,
        polarization: str | None = None,
    ) -> Iterator[Scene]:
        """Yield matching scenes in a fixed order (by id)."""
        ...


@dataclass(frozen=True)
class SarHeader:
    """Geometry and radiometry of a SAR image, known before pixels are read.

    `affine` = (a, b, c, d, e, f): x = a*col + b*row + c, y = d*col + e*row + f, in metres of `crs`
    or, when `crs` is None, of a local frame. It maps pixel corners, and may
    be rotated or mirrored. `spacing_m` = (row, col) spacing on the ground.
    """

    shape: tuple[int, int]
    is_complex: bool
    affine: Affine6
    crs: str | None
    spacing_m: tuple[float, float]
    range_direction: RangeDirection
    looks: float
    """Equivalent number of looks of the product as stored (1 for single-look)."""
    calibration: Literal["sigma0", "none"]
    """`sigma0`: read() returns values whose squared magnitude is sigma0; `none`: unknown scale."""
    geometry: Literal["ground", "slant"] = "ground"
    incidence_deg: float | None = None
    look_side: Literal["left", "right"] | None = None
    placement: PixelPlacement | None = None
    """Of a scene with GCPs: its position model in `crs`. `affine` is then the best fit over the
    whole scene, for a rough outline only."""
    local: LocalAcquisition | None = None
    """Of a scene whose file states incidence and noise pixel by pixel."""
    slant_spacing_m: tuple[float, float] | None = None
    """Spacing (row, col) in the slant plane, of an image that was formed in it."""
    response: tuple[AxisResponse, AxisResponse] | None = None
    """Impulse response along stored rows and columns, where the file states it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further entries of the metadata of all its tiles, as plain JSON values."""
    corners: tuple[tuple[float, float], ...] | None = None
    """Longitude and latitude of the corners, clockwise in image order, of a scene whose file states
    them without a CRS: they serve search and split, and place no pixel."""


class SarReader(Protocol):
    """An open SAR image. `read` returns calibrated pixels and their validity."""

    @property
    def header(self) -> SarHeader:
        """Geometry and radiometry of the image."""
        ...

    def read(
        self, rows: tuple[int, int], cols: tuple[int, int]
    ) -> tuple[NDArray[np.complex64] | NDArray[np.float32], NDArray[np.bool_]]:
        """Pixels (H, W), complex64 or float32 amplitude, and the mask of valid ones (H, W)."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...
