"""Metadata of SICD files: acquisition and image grid."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import radians, sin
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import sarkit.sicd
from numpy.typing import NDArray

from hpc.errors import DataError

# jbpy logs every blank header field of older files; errors that matter are raised.
logging.getLogger("jbpy").setLevel(logging.CRITICAL)

_BANDS = (("L", 1, 2), ("S", 2, 4), ("C", 4, 8), ("X", 8, 12), ("Ku", 12, 18), ("K", 18, 27))


@dataclass(frozen=True)
class SicdMetadata:
    """Metadata of a SICD that the archive uses."""

    shape: tuple[int, int]
    slant_spacing_m: tuple[float, float]
    """Sample spacing (row, col) in the image plane, metres."""
    image_plane: str
    incidence_deg: float
    look_side: Literal["left", "right"]
    start: str
    collector: str
    mode: str
    polarization: str | None
    centre_ghz: float | None
    corners: tuple[tuple[float, float], ...]
    """Longitude and latitude of first row first column, then clockwise in image order."""
    first_pixel: tuple[int, int]
    scp_pixel: tuple[int, int]
    sigma_zero: NDArray[np.float64] | None
    """Coefficients (row power, col power) of the sigma0 factor, distances from the SCP in m."""

    @property
    def spacing_m(self) -> tuple[float, float]:
        """Ground spacing (row, col) in metres: slant range / sin(incidence) along rows."""
        row, col = self.slant_spacing_m
        if self.image_plane == "GROUND":
            return row, col
        return row / sin(radians(self.incidence_deg)), col

    @property
    def band(self) -> str | None:
        """Radar band letter (IEEE 521), None where the file gives no frequency."""
        if self.centre_ghz is None:
            return None
        return band_of(self.centre_ghz)


def band_of(centre_ghz: float) -> str | None:
    """Radar band letter (IEEE 521) of a frequency in GHz; None outside bands L to K."""
    return next((name for name, low, high in _BANDS if low <= centre_ghz < high), None)


def read_sicd_metadata(path: Path) -> SicdMetadata:
    """The metadata of the SICD at `path`.

    Raises:
        DataError: not a SICD of a known version, or an incomplete or damaged one.
    """
    with sicd_errors(path), path.open("rb") as file:
        return _metadata(open_sicd(file, path).metadata.xmltree)


def open_sicd(file: IO[bytes], path: Path) -> sarkit.sicd.NitfReader:
    """A reader of the SICD in `file`; `path` is used in messages only.

    Raises:
        DataError: the NITF holds no SICD of a version that sarkit knows.
    """
    try:
        reader = sarkit.sicd.NitfReader(file)
    except Exception as error:  # the parser raises bare AssertionError, among others
        raise DataError(
            f"{path} is not a SICD of version 1.0 or later ({error!r}); convert it, or leave it out"
        ) from error
    version = reader.metadata.xmltree.getroot().tag.partition("}")[0].lstrip("{")
    if version not in sarkit.sicd.VERSION_INFO:
        raise DataError(
            f"{path} is of version {version}, which is not supported (only "
            f"{', '.join(sarkit.sicd.VERSION_INFO)}); convert it, or leave it out"
        )
    return reader


@contextmanager
def sicd_errors(path: Path) -> Iterator[None]:
    """Run a block that reads the SICD at `path`; damage becomes a DataError."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # as above: damage can raise any exception
        raise DataError(
            f"cannot read {path} as SICD: {error!r}; restore the file, or leave it out"
        ) from error


def _metadata(tree: Any) -> SicdMetadata:
    def text(name: str) -> str:
        return str(tree.find(f".//{{*}}{name}").text)

    def pair(first: str, second: str) -> tuple[int, int]:
        return int(text(first)), int(text(second))

    def optional(name: str) -> str | None:
        element = tree.find(f".//{{*}}{name.replace('/', '/{*}')}")
        return None if element is None else element.text

    limits = [optional(f"TxFrequencyProc/{end}") for end in ("MinProc", "MaxProc")]
    known = [float(limit) * 1e-9 for limit in limits if limit is not None]
    polarization = (optional("TxRcvPolarizationProc") or "").replace(":", "")
    return SicdMetadata(
        shape=pair("ImageData/{*}NumRows", "ImageData/{*}NumCols"),
        slant_spacing_m=(float(text("Grid/{*}Row/{*}SS")), float(text("Grid/{*}Col/{*}SS"))),
        image_plane=text("Grid/{*}ImagePlane"),
        incidence_deg=float(text("SCPCOA/{*}IncidenceAng")),
        look_side="left" if text("SCPCOA/{*}SideOfTrack") == "L" else "right",
        start=text("Timeline/{*}CollectStart"),
        collector=text("CollectionInfo/{*}CollectorName"),
        mode=optional("RadarMode/ModeID") or text("RadarMode/{*}ModeType"),
        polarization=polarization if polarization in ("HH", "HV", "VH", "VV") else None,
        centre_ghz=sum(known) / 2 if len(known) == 2 else None,
        corners=_corners(tree),
        first_pixel=pair("ImageData/{*}FirstRow", "ImageData/{*}FirstCol"),
        scp_pixel=pair("SCPPixel/{*}Row", "SCPPixel/{*}Col"),
        sigma_zero=_polynomial(tree.find(".//{*}Radiometric/{*}SigmaZeroSFPoly")),
    )


def _corners(tree: Any) -> tuple[tuple[float, float], ...]:
    points = sorted(tree.findall(".//{*}ImageCorners/{*}ICP"), key=lambda icp: icp.get("index"))
    return tuple((float(icp.find("{*}Lon").text), float(icp.find("{*}Lat").text)) for icp in points)


def _polynomial(element: Any) -> NDArray[np.float64] | None:
    if element is None:
        return None
    shape = (int(element.get("order1")) + 1, int(element.get("order2")) + 1)
    coefficients = np.zeros(shape)
    for term in element.findall("{*}Coef"):
        place = (int(term.get("exponent1", 0)), int(term.get("exponent2", 0)))
        coefficients[place] = float(term.text)
    return coefficients
