"""Writing a simulated scene: GeoTIFFs on one rotated footprint and their STAC item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine as Transform
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.warp import transform

from hpc.publish import publish_bytes
from sarhpc.archive.procedural.backscatter import WAVELENGTH_M
from sarhpc.archive.procedural.config import LABELS, ProceduralConfig
from sarhpc.archive.procedural.flight import CRS, Affine
from sarhpc.archive.procedural.simulate import SUN, ProceduralScene, simulate_scene
from sarhpc.archive.stac_item import BoundingBox, make_item, write_item
from sarhpc.imaging.focusing import resolution_px

BLOCK_PX = 256
GIGAHERTZ = 0.299792458 / WAVELENGTH_M


def write_scene(cfg: ProceduralConfig, scene_id: str, root: Path) -> Path:
    """Publish the files of one scene and its item under `root/<id>/`; returns the item's path.

    The item comes last, so a scene without item is unfinished. Equal arguments give equal bytes.

    Raises:
        ConfigError: the id or the configuration does not name a scene of this archive.
        TransientError: the disk is full; the scene has no item.
    """
    scene = simulate_scene(cfg, scene_id)
    folder = root / scene_id
    assets = {}
    for role, layer in _layers(scene).items():
        assets[role] = folder / f"{role}.tif"
        publish_bytes(assets[role], geotiff(layer, scene.flight.affine, compress=role != "sar"))
    footprint = footprint_wgs84(scene.flight.affine, scene.label.shape)
    item = make_item(
        scene_id,
        bbox=_bounds(footprint),
        geometry={"type": "Polygon", "coordinates": [footprint]},
        datetime=scene.flight.acquired.strftime("%Y-%m-%dT%H:%M:%SZ"),
        properties=_properties(cfg, scene),
        assets=assets,
    )
    return write_item(item, root)


def _layers(scene: ProceduralScene) -> dict[str, NDArray[Any]]:
    layers: dict[str, NDArray[Any]] = {
        "sar": scene.sar,
        "label": scene.label,
        "height": np.stack([scene.height, scene.terrain]),
        "shadow": scene.shadow.astype(np.uint8),
        "layover": scene.layover.astype(np.uint8),
        "incidence": scene.incidence,
    }
    if scene.optical is not None:
        layers["optical"] = np.moveaxis(scene.optical, -1, 0)
    return layers


def geotiff(image: NDArray[Any], affine: Affine, *, compress: bool) -> bytes:
    """Bytes of a GeoTIFF of `image` (H, W) or (bands, H, W) in Lambert-93; tiled from 256 px up."""
    bands = image[None] if image.ndim == 2 else image
    count, height, width = bands.shape
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": count,
        "height": height,
        "width": width,
        "dtype": bands.dtype.name,
        "crs": rasterio.CRS.from_string(CRS),
        "transform": Transform(*affine),
    }
    if min(height, width) >= BLOCK_PX:
        profile |= {"tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX}
    if compress:
        predictor = 3 if bands.dtype.kind == "f" else 2
        profile |= {"compress": "deflate", "predictor": predictor, "zlevel": 2}
    if count == 3:
        profile |= {"photometric": "rgb", "interleave": "pixel"}
    with rasterio.Env(GDAL_NUM_THREADS=1), MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            dataset.write(bands)
        return bytes(memory.read())


def footprint_wgs84(affine: Affine, shape: tuple[int, ...]) -> list[list[float]]:
    """Closed ring [[lon, lat], ...] of an image's corners, degrees, seven decimals (1 cm)."""
    to_ground = Transform(*affine)
    rows, cols = shape
    corners = [to_ground @ corner for corner in ((0, 0), (0, rows), (cols, rows), (cols, 0))]
    x, y = zip(*corners, strict=True)
    lon, lat = transform(CRS, "EPSG:4326", x, y)
    ring = [[round(a, 7), round(b, 7)] for a, b in zip(lon, lat, strict=True)]
    # GeoJSON wants the outer ring counter-clockwise (RFC 7946); rows run down the image.
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, ring[1:] + ring[:1], strict=True))
    if area < 0:
        ring.reverse()
    return [*ring, ring[0]]


def _bounds(ring: list[list[float]]) -> BoundingBox:
    lon, lat = zip(*ring, strict=True)
    return (min(lon), min(lat), max(lon), max(lat))


def _properties(cfg: ProceduralConfig, scene: ProceduralScene) -> dict[str, Any]:
    return {**_sensor(cfg, scene), **_ground(cfg, scene)}


def _sensor(cfg: ProceduralConfig, scene: ProceduralScene) -> dict[str, Any]:
    """Acquisition in the terms of the STAC sar and view extensions."""
    resolution = round(resolution_px(cfg.band_fraction, cfg.sidelobe_db) * cfg.pixel_m, 3)
    flight = scene.flight
    return {
        "platform": "falcon-20-sim",
        "instruments": ["procedural-x"],
        "product:type": "SSC" if cfg.looks == 1 else "MGD",
        "sar:instrument_mode": "stripmap",
        "sar:frequency_band": "X",
        "sar:center_frequency": round(GIGAHERTZ, 3),
        "sar:polarizations": ["HH"],
        "sar:observation_direction": "right",
        "sar:resolution_range": resolution,
        "sar:resolution_azimuth": resolution,
        "sar:pixel_spacing_range": cfg.pixel_m,
        "sar:pixel_spacing_azimuth": cfg.pixel_m,
        "sar:looks_range": 1,
        "sar:looks_azimuth": cfg.looks,
        "sar:looks_equivalent_number": cfg.looks,
        "view:incidence_angle": round(flight.incidence_deg, 4),
        "view:azimuth": round((flight.heading_deg + 270) % 360, 4),
        "view:sun_azimuth": SUN.azimuth_deg,
        "view:sun_elevation": SUN.elevation_deg,
        "proj:code": CRS,
        "proj:shape": list(scene.label.shape),
        "proj:transform": list(flight.affine),
    }


def _ground(cfg: ProceduralConfig, scene: ProceduralScene) -> dict[str, Any]:
    """Properties beyond the STAC extensions."""
    flight = scene.flight
    counts = np.bincount(scene.label.ravel(), minlength=len(LABELS)) / scene.label.size
    # Scenes of version 1 are older than the property.
    version = {"sarhpc:radiometry": cfg.radiometry} if cfg.radiometry > 1 else {}
    return {
        **version,
        "sarhpc:procedural": True,
        "sarhpc:archive_seed": cfg.seed,
        "sarhpc:ground": flight.ground_id,
        "sarhpc:kind": flight.kind if cfg.flat_class is None else "flat",
        "sarhpc:flight_line": flight.line,
        "sarhpc:heading_deg": round(flight.heading_deg, 4),
        "sarhpc:range_direction": "+col",
        "sarhpc:geometry": "ground",
        "sarhpc:calibration": "sigma0",
        "sarhpc:scale": 1.0,
        "sarhpc:nesz_db": cfg.nesz_db,
        "sarhpc:optical_datetime": flight.photographed.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "sarhpc:class_fractions": {
            name: round(float(share), 4)
            for name, share in zip(LABELS, counts, strict=True)
            if share > 0
        },
        "sarhpc:objects": list(scene.objects),
    }
