"""STAC properties of a SAR file: what the file says, what its name says, what a person declared.

A declaration wins over the file; what nobody knows is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rasterio

from sarhpc.archive.declaration import Declaration
from sarhpc.archive.formats.geotiff import BAND_QUANTITIES, quantity_of, stored_scale
from sarhpc.archive.formats.hdf5 import HDF5_SUFFIXES
from sarhpc.archive.formats.nisar import nisar_properties
from sarhpc.archive.formats.nisar_metadata import read_nisar
from sarhpc.archive.formats.nitf import NITF_SUFFIXES, nitf_kind
from sarhpc.archive.formats.recognise import name_polarization
from sarhpc.archive.formats.safe import safe_properties
from sarhpc.archive.formats.safe_bursts import read_burst
from sarhpc.archive.formats.safe_metadata import annotation_of, read_safe
from sarhpc.archive.formats.sicd_metadata import SicdMetadata, read_sicd_metadata
from sarhpc.archive.formats.sidd_metadata import SiddMetadata, read_sidd_metadata
from sarhpc.archive.handle import readable
from sarhpc.archive.scene import SarHeader


def file_properties(
    path: Path, quantity: str | None = None, layer: str | None = None
) -> tuple[dict[str, Any], SicdMetadata | None]:
    """Properties that the file itself gives, and its SICD metadata if it is read as a SICD.

    Args:
        path: the file.
        quantity: declared; one of plain bands makes a NITF a plain raster.
        layer: which image of an HDF5 file, or which burst.

    Raises:
        DataError: the file cannot be read.
    """
    if path.suffix.lower() in NITF_SUFFIXES and quantity not in BAND_QUANTITIES:
        kind = nitf_kind(path)
        if kind == "sidd":
            return _sidd_properties(read_sidd_metadata(path)), None
        if kind == "sicd":
            metadata = read_sicd_metadata(path)
            return _sicd_properties(metadata), metadata
    if path.suffix.lower() in HDF5_SUFFIXES:
        return nisar_properties(read_nisar(path, layer)) | {"sarhpc:layer": layer}, None
    if annotation_of(path) is not None:
        known = safe_properties(read_safe(path))
        if layer is not None:
            known |= {"sarhpc:layer": layer, "datetime": read_burst(path, layer).start}
        return known, None
    with readable(path), rasterio.open(path) as dataset:
        scale = stored_scale(dataset)
        properties: dict[str, Any] = {
            "sarhpc:quantity": quantity_of(dataset, path),
            "sarhpc:scale": scale,
            "sarhpc:calibration": "none" if scale is None else "sigma0",
        }
    polarization = name_polarization(path)
    properties["sar:polarizations"] = None if polarization is None else [polarization]
    return properties, None


def _sicd_properties(metadata: SicdMetadata) -> dict[str, Any]:
    polarization = metadata.polarization
    return {
        "datetime": metadata.start,
        "platform": metadata.collector.lower(),
        "sar:instrument_mode": metadata.mode,
        "sar:frequency_band": metadata.band,
        "sar:center_frequency": metadata.centre_ghz,
        "sar:polarizations": None if polarization is None else [polarization],
        "sar:observation_direction": metadata.look_side,
        "sar:looks_equivalent_number": 1.0,
        "view:incidence_angle": metadata.incidence_deg,
        "sarhpc:quantity": "complex",
        "sarhpc:range_direction": "+row",
        "sarhpc:geometry": "ground" if metadata.image_plane == "GROUND" else "slant",
        "sarhpc:calibration": "none" if metadata.sigma_zero is None else "sigma0",
    }


def _sidd_properties(metadata: SiddMetadata) -> dict[str, Any]:
    polarization = metadata.polarization
    return {
        "datetime": metadata.start,
        "platform": metadata.collector.lower(),
        "sar:instrument_mode": metadata.mode,
        "sar:frequency_band": metadata.band,
        "sar:polarizations": None if polarization is None else [polarization],
        "sar:observation_direction": metadata.look_side,
        "view:incidence_angle": metadata.incidence_deg,
        "sarhpc:quantity": "amplitude",
        "sarhpc:range_direction": metadata.range_direction,
        "sarhpc:geometry": "ground",
        "sarhpc:remap": metadata.remap,
        "sarhpc:calibration": "none",
    }


def declared_properties(declared: Declaration) -> dict[str, Any]:
    """Properties that a person declared; None where nothing is declared."""
    polarization = declared.polarization
    return {
        "datetime": declared.datetime,
        "platform": declared.platform,
        "sar:instrument_mode": declared.instrument_mode,
        "sar:frequency_band": declared.band,
        "sar:center_frequency": declared.center_frequency_ghz,
        "sar:polarizations": None if polarization is None else [polarization],
        "sar:observation_direction": declared.look_side,
        "sar:looks_equivalent_number": declared.looks,
        "sar:product_type": declared.product_type,
        "product:type": declared.product_type,
        "view:incidence_angle": declared.incidence_deg,
        "sarhpc:range_direction": declared.range_direction,
        "sarhpc:quantity": declared.quantity,
        "sarhpc:geometry": declared.geometry,
        "sarhpc:flight_line": declared.flight_line,
        "sarhpc:band_index": declared.band_index,
        "sarhpc:spacing_m": declared.spacing_m,
        "sarhpc:scale": declared.scale,
        "sarhpc:calibration": _declared_calibration(declared),
    }


def _declared_calibration(declared: Declaration) -> str | None:
    calibrated = declared.calibrated
    if calibrated is None:
        return None if declared.scale is None else "sigma0"
    return "sigma0" if calibrated else "none"


def merged_properties(file: dict[str, Any], declared: dict[str, Any]) -> dict[str, Any]:
    """Both together, the declared ones winning, unknown ones left out."""
    merged = {key: value for key, value in file.items() if value is not None}
    merged |= {key: value for key, value in declared.items() if value is not None}
    if merged.get("sarhpc:calibration") == "none" and declared.get("sarhpc:scale") is None:
        # Declared as not calibrated: the file's own factor does not count either.
        merged.pop("sarhpc:scale", None)
    return merged


def grid_properties(header: SarHeader) -> dict[str, Any]:
    """`proj:` and pixel spacing properties of the image grid, ground metres."""
    row, col = header.spacing_m
    along_col = header.range_direction.endswith("col")
    coded = header.crs is not None and header.crs.startswith("EPSG:")
    placement = header.placement
    properties: dict[str, Any] = {
        "proj:code": header.crs if coded else None,
        "proj:shape": list(header.shape),
        "sar:pixel_spacing_range": round(col if along_col else row, 9),
        "sar:pixel_spacing_azimuth": round(row if along_col else col, 9),
    }
    if placement is None:
        properties["proj:transform"] = list(header.affine)
    else:
        # No single affine places these pixels, so none is written down.
        properties["sarhpc:geolocation"] = placement.to_json()
    if header.crs is not None and not coded:
        properties["proj:wkt2"] = header.crs
    return properties
