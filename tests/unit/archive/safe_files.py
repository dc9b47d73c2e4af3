"""A Sentinel-1 SAFE folder around a real measurement, with annotation in the specified layout."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

NAME = "s1a-iw-grd-vv-20180716t060623-20180716t060648-022822-02797f-001"
Course = Callable[[float, float], float]


def write_safe(
    root: Path,
    measurement: Path,
    shape: tuple[int, int],
    *,
    product: str = "GRD",
    gain: Course = lambda row, col: 400.0,
    noise: Course | None = lambda row, col: 1600.0,
    old_noise: bool = False,
    incidence: Course = lambda row, col: 30.0 + 0.01 * col,
    name: str = NAME,
) -> Path:
    """The measurement inside a new `.SAFE` folder; courses are values at (row, col)."""
    safe = root / "S1A_IW_GRDH_1SDV_20180716T060623_20180716T060648_022822_02797F_0001.SAFE"
    for folder in ("measurement", "annotation/calibration", "preview"):
        (safe / folder).mkdir(parents=True, exist_ok=True)
    (safe / "manifest.safe").write_text("<xfdu/>")
    (safe / "preview" / "quick-look.png").write_bytes(b"not looked at")
    image = safe / "measurement" / f"{name}.tiff"
    os.symlink(measurement, image)
    rows = np.unique(np.linspace(0, shape[0] - 1, 11).astype(int))
    cols = np.unique(np.linspace(0, shape[1] - 1, 21).astype(int))
    annotation = safe / "annotation"
    (annotation / f"{name}.xml").write_text(_annotation(rows, cols, product, incidence))
    (annotation / "calibration" / f"calibration-{name}.xml").write_text(
        "<calibration><adsHeader/>" + _vectors("calibration", "sigmaNought", rows, cols, gain)
        + "</calibration>"
    )  # fmt: skip
    if noise is not None:
        kind, lut = ("noise", "noiseLut") if old_noise else ("noiseRange", "noiseRangeLut")
        blocks = "" if old_noise else _blocks(shape)
        text = f"<noise><adsHeader/>{_vectors(kind, lut, rows, cols, noise)}{blocks}</noise>"
        (annotation / "calibration" / f"noise-{name}.xml").write_text(text)
    return image


def _vectors(kind: str, lut: str, rows: np.ndarray, cols: np.ndarray, course: Course) -> str:
    body = "".join(
        f"<{kind}Vector><azimuthTime>2018-07-16T06:06:23.1</azimuthTime><line>{row}</line>"
        f'<pixel count="{len(cols)}">{" ".join(map(str, cols))}</pixel>'
        f'<{lut} count="{len(cols)}">{" ".join(f"{course(row, col):.6e}" for col in cols)}</{lut}>'
        f"</{kind}Vector>"
        for row in rows
    )
    return f'<{kind}VectorList count="{len(rows)}">{body}</{kind}VectorList>'


def _blocks(shape: tuple[int, int]) -> str:
    """Azimuth noise: doubled in the right half of the image, with one vector left empty."""
    half = shape[1] // 2
    return (
        '<noiseAzimuthVectorList count="3">'
        + _block("IW1", shape[0], 0, half - 1, "1.0 1.0")
        + _block("IW2", shape[0], half, shape[1] - 1, "2.0 2.0")
        + '<noiseAzimuthVector><swath>IW3</swath><line count="0"/><noiseAzimuthLut count="0"/>'
        "</noiseAzimuthVector></noiseAzimuthVectorList>"
    )


def _block(swath: str, rows: int, first: int, last: int, lut: str) -> str:
    return (
        f"<noiseAzimuthVector><swath>{swath}</swath><firstAzimuthLine>0</firstAzimuthLine>"
        f"<firstRangeSample>{first}</firstRangeSample>"
        f"<lastAzimuthLine>{rows - 1}</lastAzimuthLine><lastRangeSample>{last}</lastRangeSample>"
        f'<line count="2">0 {rows - 1}</line><noiseAzimuthLut count="2">{lut}</noiseAzimuthLut>'
        "</noiseAzimuthVector>"
    )


def _annotation(rows: np.ndarray, cols: np.ndarray, product: str, incidence: Course) -> str:
    points = "".join(
        f"<geolocationGridPoint><line>{row}</line><pixel>{col}</pixel><latitude>45.0</latitude>"
        f"<longitude>7.0</longitude><height>0.0</height>"
        f"<incidenceAngle>{incidence(row, col):.9e}</incidenceAngle>"
        f"<elevationAngle>27.0</elevationAngle></geolocationGridPoint>"
        for row in rows
        for col in cols
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<product>
  <adsHeader>
    <missionId>S1A</missionId><productType>{product}</productType><polarisation>VV</polarisation>
    <mode>IW</mode><swath>IW</swath><startTime>2018-07-16T06:06:23.104000</startTime>
    <stopTime>2018-07-16T06:06:48.102000</stopTime>
    <absoluteOrbitNumber>22822</absoluteOrbitNumber>
  </adsHeader>
  <generalAnnotation><productInformation><pass>Descending</pass>
    <projection>Ground Range</projection>
    <radarFrequency>5.405000454334350e+09</radarFrequency>
  </productInformation></generalAnnotation>
  <imageAnnotation>
    <imageInformation><rangePixelSpacing>1.0e+01</rangePixelSpacing>
      <azimuthPixelSpacing>1.0e+01</azimuthPixelSpacing>
      <incidenceAngleMidSwath>3.92e+01</incidenceAngleMidSwath></imageInformation>
    <processingInformation><swathProcParamsList count="1"><swathProcParams><swath>IW1</swath>
      <rangeProcessing><numberOfLooks>5</numberOfLooks></rangeProcessing>
      <azimuthProcessing><numberOfLooks>1</numberOfLooks></azimuthProcessing>
    </swathProcParams></swathProcParamsList></processingInformation>
  </imageAnnotation>
  <geolocationGrid><geolocationGridPointList count="{len(rows) * len(cols)}">{points}
  </geolocationGridPointList></geolocationGrid>
</product>
"""
