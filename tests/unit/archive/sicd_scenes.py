"""SICD files of simulated complex scenes, in the geometry of a spotlight with twist."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from unit.archive.sicd_files import write_nitf

EAST, NORTH, UP = np.array([0.0, 1, 0]), np.array([0.0, 0, 1]), np.array([1.0, 0, 0])
"""At latitude and longitude 0."""


def plane_axes(graze_deg: float, twist_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """Row and column directions of a slant plane that looks east, with a SICD TwistAng.

    The plane is turned about the line of sight until its columns leave the horizontal by the twist.
    """
    graze = math.radians(graze_deg)
    twist = math.asin(math.sin(math.radians(twist_deg)) / math.cos(graze))
    row = math.cos(graze) * EAST - math.sin(graze) * UP
    across = math.sin(graze) * EAST + math.cos(graze) * UP
    return row, math.cos(twist) * NORTH + math.sin(twist) * across


def ground_matrix(graze_deg: float, twist_deg: float) -> np.ndarray:
    """Ground (east, north) of image-plane metres (row, col), by projection alone."""
    row, col = plane_axes(graze_deg, twist_deg)
    normal = np.cross(row, col)
    found = []
    for axis in (row, col):
        # Along the normal of the plane down to the horizontal.
        on_ground = axis - normal * (axis @ UP) / (normal @ UP)
        found.append([on_ground @ EAST, on_ground @ NORTH])
    return np.array(found).T


def band_noise(shape: tuple[int, int], band: float, seed: int = 0) -> np.ndarray:
    """White complex speckle within a centred band of each axis."""
    rng = np.random.default_rng(seed)
    field = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    spectrum = np.fft.fft2(field)
    for axis, size in enumerate(shape):
        keep = np.abs(np.fft.fftfreq(size)) <= band / 2
        spectrum *= keep[:, None] if axis == 0 else keep[None]
    return np.fft.ifft2(spectrum).astype(np.complex64)


def xyz(name: str, vector: np.ndarray) -> str:
    """An element of three coordinates."""
    parts = (f"<{a}>{v:.15e}</{a}>" for a, v in zip("XYZ", vector, strict=True))
    return f"<{name}>{''.join(parts)}</{name}>"


def polynomial(name: str, terms: np.ndarray) -> str:
    """An element of a two-dimensional polynomial."""
    listed = "".join(
        f'<Coef exponent1="{i}" exponent2="{j}">{terms[i, j]:.15e}</Coef>'
        for i in range(terms.shape[0])
        for j in range(terms.shape[1])
    )
    return f'<{name} order1="{terms.shape[0] - 1}" order2="{terms.shape[1] - 1}">{listed}</{name}>'


def axis_xml(
    name: str, vector: np.ndarray, step: float, drift: str, band: float, window: str
) -> str:
    """The grid along one axis."""
    return (
        f"<{name}>{xyz('UVectECF', vector)}<SS>{step}</SS>"
        f"<ImpRespWid>{0.886 / band * step}</ImpRespWid><Sgn>-1</Sgn>"
        f"<ImpRespBW>{band / step}</ImpRespBW><KCtr>60</KCtr>{drift}"
        f"<WgtType><WindowName>{window}</WindowName></WgtType></{name}>"
    )


def write_sicd_scene(
    path: Path,
    pixels: np.ndarray,
    *,
    spacing: tuple[float, float] = (0.25, 0.25),
    graze_deg: float = 45.0,
    twist_deg: float = 0.0,
    centre: np.ndarray | None = None,
    noise_db: float | None = None,
    sigma_zero: float | None = 1.0,
    window: str = "UNIFORM",
    band: float = 0.8,
) -> Path:
    """A SICD of these pixels (rows along range); `centre` holds DeltaKCOAPoly of the columns."""
    rows, cols = pixels.shape
    row, col = plane_axes(graze_deg, twist_deg)

    drift = "" if centre is None else polynomial("DeltaKCOAPoly", centre)
    noise = "" if noise_db is None else (
        "<NoiseLevel><NoiseLevelType>ABSOLUTE</NoiseLevelType>"
        f"{polynomial('NoisePoly', np.array([[noise_db]]))}</NoiseLevel>"
    )  # fmt: skip
    factor = "" if sigma_zero is None else polynomial("SigmaZeroSFPoly", np.array([[sigma_zero]]))
    text = f"""<SICD xmlns="urn:SICD:1.2.1">
<CollectionInfo><CollectorName>SIM</CollectorName><CoreName>core</CoreName>
<RadarMode><ModeType>SPOTLIGHT</ModeType></RadarMode>
<Classification>UNCLASSIFIED</Classification></CollectionInfo>
<ImageCreation><DateTime>2024-01-01T00:00:00.000000Z</DateTime></ImageCreation>
<ImageData><PixelType>RE32F_IM32F</PixelType><NumRows>{rows}</NumRows><NumCols>{cols}</NumCols>
<FirstRow>0</FirstRow><FirstCol>0</FirstCol>
<FullImage><NumRows>{rows}</NumRows><NumCols>{cols}</NumCols></FullImage>
<SCPPixel><Row>{rows // 2}</Row><Col>{cols // 2}</Col></SCPPixel></ImageData>
<GeoData><SCP><ECF><X>6378137</X><Y>0</Y><Z>0</Z></ECF>
<LLH><Lat>0</Lat><Lon>0</Lon><HAE>0</HAE></LLH></SCP><ImageCorners>
<ICP index="1:FRFC"><Lat>0.001</Lat><Lon>0.001</Lon></ICP>
<ICP index="2:FRLC"><Lat>0.01</Lat><Lon>0.001</Lon></ICP>
<ICP index="3:LRLC"><Lat>0.01</Lat><Lon>0.01</Lon></ICP>
<ICP index="4:LRFC"><Lat>0.001</Lat><Lon>0.01</Lon></ICP></ImageCorners></GeoData>
<Grid><ImagePlane>SLANT</ImagePlane><Type>RGAZIM</Type>
{axis_xml("Row", row, spacing[0], "", band, window)}
{axis_xml("Col", col, spacing[1], drift, band, window)}</Grid>
<Timeline><CollectStart>2024-01-01T00:00:00.000000Z</CollectStart></Timeline>
<ImageFormation><TxRcvPolarizationProc>V:V</TxRcvPolarizationProc>
<TxFrequencyProc><MinProc>9.3e9</MinProc><MaxProc>9.9e9</MaxProc></TxFrequencyProc></ImageFormation>
<SCPCOA>{xyz("ARPPos", 6378137 * UP - 7e5 * row)}{xyz("ARPVel", 7000 * col)}
<SideOfTrack>R</SideOfTrack><IncidenceAng>{90 - graze_deg}</IncidenceAng></SCPCOA>
<Radiometric>{noise}{factor}</Radiometric></SICD>"""
    return write_nitf(path, text, pixels.astype(np.complex64))
