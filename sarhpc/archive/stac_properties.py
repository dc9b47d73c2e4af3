"""STAC properties of a SAR file: what its format states, and what a user declares.

Declarations override the file; unknown properties are omitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sarhpc.archive.declaration import Declaration
from sarhpc.archive.scene import SarHeader


def declared_properties(declared: Declaration) -> dict[str, Any]:
    """Properties that a user declared; None where nothing is declared."""
    polarization = declared.polarization
    return {
        "datetime": declared.datetime,
        "platform": declared.platform,
        "license": declared.licence,
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


def merged_properties(file: Mapping[str, Any], declared: Mapping[str, Any]) -> dict[str, Any]:
    """Both merged: declared values take precedence, unknown ones are omitted."""
    merged = {key: value for key, value in file.items() if value is not None}
    merged |= {key: value for key, value in declared.items() if value is not None}
    if merged.get("sarhpc:calibration") == "none" and declared.get("sarhpc:scale") is None:
        # Declared as uncalibrated: the file's own factor is dropped too.
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
        # No single affine places these pixels, so none is written.
        properties["sarhpc:geolocation"] = placement.to_json()
    if header.crs is not None and not coded:
        properties["proj:wkt2"] = header.crs
    return properties
