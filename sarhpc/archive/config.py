"""Configuration of the archive a run reads, and of the scenes selected from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass
class ArchiveConfig:
    """Where the scenes are, and which of them are used."""

    uri: str = ""
    """Folder of a static STAC catalogue, its catalog.json, or `scheme:rest` for a plug-in of the
    entry-point group `sarhpc.archives`. Empty: the procedural archive the run itself writes."""

    band: Optional[str] = None  # noqa: UP045 - OmegaConf reads Optional
    """Only scenes of this radar band letter (`X`, `C`, ...); null takes every band."""

    polarization: Optional[str] = None  # noqa: UP045
    """Only scenes with this polarisation (`HH`, `HV`, `VH`, `VV`); null takes all."""

    bbox: Optional[list[float]] = None  # noqa: UP045
    """Only scenes that touch west, south, east, north (degrees WGS84; west > east crosses the
    antimeridian). Scenes without georeference are then excluded."""

    datetime: Optional[str] = None  # noqa: UP045
    """Only scenes within this RFC 3339 time or interval: `2019-08-04`, `2019-08-04/..`. Scenes of
    unknown time are then excluded."""

    ids: Optional[list[str]] = None  # noqa: UP045
    """Only scenes with these ids; null takes all."""

    assume_calibrated: bool = False
    """Take pixel values of scenes with unknown calibration as sigma0 amplitude. Speckle
    statistics remain valid, absolute levels do not."""
