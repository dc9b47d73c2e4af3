"""SICD files of a few pixels whose every number differs from its neighbours in the file."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import sarkit.sicd
from lxml import etree

CORNERS = {"1:FRFC": (10.0, 45.0), "2:FRLC": (10.5, 45.1), "3:LRLC": (10.6, 44.2),
           "4:LRFC": (10.1, 44.1)}  # fmt: skip
"""Longitude and latitude by index: no two have a coordinate in common."""

PIXELS = np.arange(12, dtype=np.complex64).reshape(3, 4) * (1 + 2j)


def write_sicd(
    path: Path,
    *,
    plane: str = "SLANT",
    corners: tuple[str, ...] = tuple(CORNERS),
    frequency: tuple[float | None, float | None] = (9.0e9, 10.0e9),
    polarization: str | None = "H:V",
    side: str = "L",
    mode_id: str | None = "16M11",
    sigma_zero: str = "",
) -> Path:
    """A SICD of 3 rows and 4 columns; `corners` in the order in which they stand in the file."""
    points = "".join(
        f'<ICP index="{index}"><Lat>{CORNERS[index][1]}</Lat><Lon>{CORNERS[index][0]}</Lon></ICP>'
        for index in corners
    )
    ends = zip(("MinProc", "MaxProc"), frequency, strict=True)
    limits = "".join(f"<{name}>{hertz}</{name}>" for name, hertz in ends if hertz is not None)
    polarized = (
        "" if polarization is None
        else f"<TxRcvPolarizationProc>{polarization}</TxRcvPolarizationProc>"
    )  # fmt: skip
    mode = "" if mode_id is None else f"<ModeID>{mode_id}</ModeID>"
    text = f"""<SICD xmlns="urn:SICD:1.2.1">
<CollectionInfo><CollectorName>RCM-1</CollectorName><CoreName>core</CoreName>
<RadarMode><ModeType>STRIPMAP</ModeType>{mode}</RadarMode>
<Classification>UNCLASSIFIED</Classification></CollectionInfo>
<ImageCreation><DateTime>2020-02-14T21:03:34.000000Z</DateTime></ImageCreation>
<ImageData><PixelType>RE32F_IM32F</PixelType><NumRows>3</NumRows><NumCols>4</NumCols>
<FirstRow>5</FirstRow><FirstCol>60</FirstCol>
<FullImage><NumRows>2710</NumRows><NumCols>19227</NumCols></FullImage>
<SCPPixel><Row>7</Row><Col>63</Col></SCPPixel></ImageData>
<GeoData><SCP><ECF><X>6378137</X><Y>0</Y><Z>0</Z></ECF>
<LLH><Lat>0</Lat><Lon>0</Lon><HAE>0</HAE></LLH></SCP><ImageCorners>{points}</ImageCorners></GeoData>
<Grid><ImagePlane>{plane}</ImagePlane><Type>RGZERO</Type>
<Row><UVectECF><X>0</X><Y>1</Y><Z>0</Z></UVectECF><SS>2.0</SS></Row>
<Col><UVectECF><X>0</X><Y>0</Y><Z>1</Z></UVectECF><SS>3.0</SS></Col></Grid>
<Timeline><CollectStart>2019-10-28T22:43:39.923000Z</CollectStart></Timeline>
<ImageFormation>{polarized}<TxFrequencyProc>{limits}</TxFrequencyProc></ImageFormation>
<SCPCOA><ARPPos><X>6878137</X><Y>-300000</Y><Z>0</Z></ARPPos>
<ARPVel><X>0</X><Y>0</Y><Z>7000</Z></ARPVel><SideOfTrack>{side}</SideOfTrack><IncidenceAng>30.0</IncidenceAng></SCPCOA>
{sigma_zero}</SICD>"""
    return write_nitf(path, text, PIXELS)


def write_nitf(path: Path, text: str, pixels: np.ndarray) -> Path:
    """A SICD of this XML document and these complex pixels."""
    metadata = sarkit.sicd.NitfMetadata(
        xmltree=etree.ElementTree(etree.fromstring(text)),
        file_header_part={"ostaid": "test", "security": {"clas": "U"}},
        im_subheader_part={"isorce": "test", "security": {"clas": "U"}},
        de_subheader_part={"security": {"clas": "U"}},
    )
    with warnings.catch_warnings():
        # Only what is read is there, which the schema does not allow.
        warnings.simplefilter("ignore")
        with path.open("wb") as file, sarkit.sicd.NitfWriter(file, metadata) as writer:
            writer.write_image(pixels)
    return path
