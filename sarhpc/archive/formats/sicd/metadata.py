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
from lxml import etree
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.archive.formats.sicd.geometry import GroundAxes, ground_axes, vertical
from sarhpc.archive.response import AxisResponse

# jbpy logs every blank header field of older files; errors that matter are raised.
logging.getLogger("jbpy").setLevel(logging.CRITICAL)

_DOCUMENT_BYTES = 16 << 20

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
    axes: GroundAxes | None = None
    """How rows and columns lie on the ground, where the file gives their directions."""
    azimuth_centre: NDArray[np.float64] | None = None
    """Coefficients of the centre of the spectrum along columns, cycles per metre."""
    azimuth_sign: int = -1
    """Sign of the exponent of the transform along columns."""
    noise_db: NDArray[np.float64] | None = None
    """Coefficients of the absolute noise power of a pixel, dB."""
    response: tuple[AxisResponse, AxisResponse] | None = None
    """Impulse response along rows and columns, widths on the ground."""

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
    """The metadata of the SICD at `path`, of any version: 0.4 has the same elements.

    Raises:
        DataError: no SICD, or an incomplete or damaged one.
    """
    with sicd_errors(path), path.open("rb") as file:
        try:
            tree = open_sicd(file, path).metadata.xmltree
        except DataError:
            # Of a version whose pixels are not read, the document has the same elements.
            tree = _document_in(file)
            if tree is None:
                raise
        return _metadata(tree)


def _document_in(file: IO[bytes]) -> Any:
    """The SICD document near the beginning or the end of a file; None if there is none."""
    size = file.seek(0, 2)
    for start in dict.fromkeys((0, max(size - _DOCUMENT_BYTES, 0))):
        file.seek(start)
        data = file.read(_DOCUMENT_BYTES)
        first = data.find(b'<SICD xmlns="urn:SICD:')
        last = data.find(b"</SICD>", first)
        if first >= 0 and last > first:
            parser = etree.XMLParser(resolve_entities=False, no_network=True)
            return etree.ElementTree(etree.fromstring(data[first : last + 7], parser))
    return None


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
        axes=_axes(tree),
        azimuth_centre=_polynomial(tree.find(".//{*}Grid/{*}Col/{*}DeltaKCOAPoly")),
        azimuth_sign=1 if (optional("Grid/Col/Sgn") or "-1").strip() in ("1", "+1") else -1,
        noise_db=_noise(tree),
        response=_response(tree),
    )


def _axes(tree: Any) -> GroundAxes | None:
    """The axes on the ground; None where the file lacks directions or the place of the scene."""

    def vector(path: str) -> NDArray[np.float64] | None:
        """The vector (3,) in ECF at that path; None where a component is absent."""
        node = tree.find(f".//{{*}}{path.replace('/', '/{*}')}")
        parts = [] if node is None else [node.find(f"{{*}}{axis}") for axis in "XYZ"]
        if not parts or any(part is None or not part.text for part in parts):
            return None
        return np.array([float(part.text) for part in parts])

    row, col = vector("Grid/Row/UVectECF"), vector("Grid/Col/UVectECF")
    place = tree.find(".//{*}GeoData/{*}SCP/{*}LLH")
    if row is None or col is None or place is None:
        return None
    lat, lon = (place.find(f"{{*}}{name}") for name in ("Lat", "Lon"))
    if lat is None or lon is None:
        return None
    return ground_axes(row, col, vertical(float(lat.text), float(lon.text)))


def _noise(tree: Any) -> NDArray[np.float64] | None:
    level = tree.find(".//{*}Radiometric/{*}NoiseLevel")
    kind = None if level is None else level.find("{*}NoiseLevelType")
    if kind is None or (kind.text or "").strip() != "ABSOLUTE":
        return None
    return _polynomial(level.find("{*}NoisePoly"))


def _response(tree: Any) -> tuple[AxisResponse, AxisResponse] | None:
    axes = [_axis_response(tree.find(f".//{{*}}Grid/{{*}}{name}")) for name in ("Row", "Col")]
    return None if axes[0] is None or axes[1] is None else (axes[0], axes[1])


def _axis_response(axis: Any) -> AxisResponse | None:
    """Response along one axis in the image plane; None where its band is not given."""

    def value(name: str) -> str | None:
        node = None if axis is None else axis.find(f"{{*}}{name.replace('/', '/{*}')}")
        return None if node is None or not (node.text or "").strip() else node.text.strip()

    band, spacing, width = (value(name) for name in ("ImpRespBW", "SS", "ImpRespWid"))
    if band is None or spacing is None or not 0 < float(band) * float(spacing) <= 1:
        return None
    parameters = {} if axis is None else {
        node.get("name", "").upper(): node.text for node in axis.findall("{*}WgtType/{*}Parameter")
    }  # fmt: skip
    listed = [float(node.text) for node in axis.findall("{*}WgtFunct/{*}Wgt") if node.text]
    first = next((p for name, p in parameters.items() if name != "NBAR" and p), None)
    return AxisResponse(
        band=float(band) * float(spacing),
        window=(value("WgtType/WindowName") or "UNIFORM").upper(),
        parameter=_number(first),
        weights=tuple(listed),
        irw_m=None if width is None else float(width),
    )


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


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
