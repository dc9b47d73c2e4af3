"""A Sentinel-1 SLC of three bursts, made: ground seen twice where they overlap, ramp and all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from safe_files import write_safe

NAME = "s1a-iw1-slc-vv-20180716t060623-20180716t060648-022822-02797f-004"
BURSTS, LINES, SAMPLES, CYCLE = 3, 384, 160, 340
LINE_S = 2.0555e-3
NEAR_S = 5.33e-3
SAMPLE_RATE = 6.434523812571428e7
BEGAN = datetime(2018, 7, 16, 6, 6, 23, 400000, tzinfo=UTC)
SPEED = (3000.0, -6000.0, 3500.0)
STEERING_DEG_S = 1.590368784
FREQUENCY = 5.40500045433435e09
RATE = (-2330.0, 450_000.0, -8e7)
CENTROID = (-31.0, 60_000.0, 1e7)
GRID_T0 = 5.34e-3


def ramp() -> np.ndarray:
    """The phase ramp (LINES, SAMPLES) of a burst, factor by factor as the definition has it."""
    speed = np.sqrt(sum(v**2 for v in SPEED))
    turning = 2 * speed / 299_792_458.0 * FREQUENCY * np.radians(STEERING_DEG_S)
    tau = NEAR_S + np.arange(SAMPLES) / SAMPLE_RATE - GRID_T0
    rate = RATE[0] + RATE[1] * tau + RATE[2] * tau**2
    centroid = CENTROID[0] + CENTROID[1] * tau + CENTROID[2] * tau**2
    sweep = turning / (1 - turning / rate)
    crossing = -centroid / rate
    eta = (np.arange(LINES)[:, None] - LINES / 2) * LINE_S
    eta = eta - (crossing - crossing[SAMPLES // 2])
    return np.exp(1j * np.pi * sweep * eta**2 + 2j * np.pi * centroid * eta)


def ground(seed: int = 0, target: tuple[int, int] | None = None) -> np.ndarray:
    """Complex ground of all bursts: two thirds of both bands, and a target at (line, col)."""
    shape = (CYCLE * (BURSTS - 1) + LINES, SAMPLES)
    rng = np.random.default_rng(seed)
    field = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    if target is not None:
        field *= 0.03
        field[target] = 300
    spectrum = np.fft.fft2(field)
    for axis, length in enumerate(shape):
        kept = np.abs(np.fft.fftfreq(length)) < 1 / 3
        spectrum *= kept[:, None] if axis == 0 else kept
    return np.fft.ifft2(spectrum)


def place(line: np.ndarray, col: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude of ground lines and columns: 14 m by 4 m, bent a little."""
    north, east = line * 14.0, col * 4.0 + 2e-5 * (line - 300) ** 2
    return 7.0 + east / 78_850.0, 45.0 - north / 111_130.0


def write_bursts(root: Path, field: np.ndarray, *, broken: str | None = None) -> Path:
    """The measurement of `field` inside a SAFE folder; without the element `broken`."""
    starts = [CYCLE * number for number in range(BURSTS)]
    turned = ramp()
    image = np.vstack([field[s : s + LINES] * turned for s in starts]).astype(np.complex64)
    rows = [LINES * number for number in range(BURSTS)] + [BURSTS * LINES - 1]
    lines = [*starts, starts[-1] + LINES - 1]
    cols = np.linspace(0, SAMPLES - 1, 8).astype(int)
    gcps = [
        GroundControlPoint(row, col, *place(line, col))
        for row, line in zip(rows, lines, strict=True)
        for col in cols
    ]
    root.mkdir(parents=True, exist_ok=True)
    source = root / "measured.tiff"
    with rasterio.open(
        source, "w", driver="GTiff", width=SAMPLES, height=len(image), count=1,
        dtype="complex64", gcps=gcps, crs="EPSG:4326",
    ) as file:  # fmt: skip
        file.write(image, 1)
    path = write_safe(root, source, image.shape, product="SLC", name=NAME)
    annotation = path.parent.parent / "annotation" / f"{NAME}.xml"
    tree = ElementTree.fromstring(annotation.read_text())
    _annotate(tree, rows, lines, cols)
    if broken is not None:
        for parent in tree.iter():
            for child in parent.findall(broken):
                parent.remove(child)
    annotation.write_text(ElementTree.tostring(tree, encoding="unicode"))
    return path


def _annotate(tree: ElementTree.Element, rows: list[int], lines: list[int], cols: np.ndarray):
    general = tree.find("generalAnnotation")
    product = general.find("productInformation")
    _add(product, "rangeSamplingRate", SAMPLE_RATE)
    _add(product, "azimuthSteeringRate", STEERING_DEG_S)
    orbits = ElementTree.SubElement(general, "orbitList")
    for second in (-10, 0, 10):
        orbit = ElementTree.SubElement(orbits, "orbit")
        _add(orbit, "time", _stamp(second))
        velocity = ElementTree.SubElement(orbit, "velocity")
        for axis, value in zip("xyz", SPEED, strict=True):
            _add(velocity, axis, value)
    rates = ElementTree.SubElement(general, "azimuthFmRateList")
    centroids = ElementTree.SubElement(ElementTree.SubElement(tree, "dopplerCentroid"),
                                       "dcEstimateList")  # fmt: skip
    for second, factor in ((-9.0, 7.0), (0.5, 1.0), (9.0, 7.0)):
        rate = ElementTree.SubElement(rates, "azimuthFmRate")
        centroid = ElementTree.SubElement(centroids, "dcEstimate")
        for node in (rate, centroid):
            _add(node, "azimuthTime", _stamp(second))
            _add(node, "t0", GRID_T0)
        _add(rate, "azimuthFmRatePolynomial", " ".join(f"{factor * v:.9e}" for v in RATE))
        _add(centroid, "dataDcPolynomial", " ".join(f"{factor * v:.9e}" for v in CENTROID))
    information = tree.find("imageAnnotation/imageInformation")
    _add(information, "azimuthTimeInterval", LINE_S)
    _add(information, "slantRangeTime", NEAR_S)
    timing = ElementTree.SubElement(tree, "swathTiming")
    _add(timing, "linesPerBurst", LINES)
    _add(timing, "samplesPerBurst", SAMPLES)
    bursts = ElementTree.SubElement(timing, "burstList")
    first = [-1] * 5 + [3] * (LINES - 10) + [-1] * 5
    last = [-1] * 5 + [SAMPLES - 7] * (LINES - 10) + [-1] * 5
    for number in range(BURSTS):
        burst = ElementTree.SubElement(bursts, "burst")
        _add(burst, "azimuthTime", _stamp(CYCLE * number * LINE_S))
        _add(burst, "firstValidSample", " ".join(map(str, first)))
        _add(burst, "lastValidSample", " ".join(map(str, last)))
    points = tree.find("geolocationGrid/geolocationGridPointList")
    points.clear()
    for row, line in zip(rows, lines, strict=True):
        for col in cols:
            point = ElementTree.SubElement(points, "geolocationGridPoint")
            lon, lat = place(line, col)
            known = {"azimuthTime": _stamp(line * LINE_S), "line": row, "pixel": col,
                     "latitude": f"{lat:.12f}", "longitude": f"{lon:.12f}", "height": 0.0,
                     "incidenceAngle": 30 + 0.01 * col}  # fmt: skip
            for name, value in known.items():
                _add(point, name, value)


def _stamp(second: float) -> str:
    return (BEGAN + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S.%f")


def _add(parent: ElementTree.Element, name: str, value: object) -> None:
    ElementTree.SubElement(parent, name).text = str(value)
