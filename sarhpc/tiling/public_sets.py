"""Facts in the metadata of public SAR sets: SARLO-80 and SARLAND as ONERA publishes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hpc.errors import DataError
from sarhpc.archive.formats.sicd.accompanying import sicd_facts

_ANGLES = ("ellipsoid_deg", "sicd_deg", "terrain_deg")
"""Of `incidence_angles`, the one to take first: tiles cut here state the angle on the ellipsoid."""


def public_facts(meta: Mapping[str, Any], layers: Mapping[str, bytes]) -> dict[str, Any]:
    """Entries of tile metadata that SARLO-80's `meta.json` and `sicd.xml` state.

    Spacing is that of slant range and azimuth; where they differ, the root of their product.
    """
    facts = {}
    if "sicd.xml" in layers:
        try:
            facts = sicd_facts(layers["sicd.xml"])
        except DataError:
            facts = {}
    spacing = [_number(meta.get(f"spacing_eff_{axis}")) for axis in ("az", "rg")]
    if spacing[0] and spacing[1]:
        facts["pixel_m"] = round(math.sqrt(spacing[0] * spacing[1]), 9)
        facts["plane"] = "slant"
    elif "pixel_m" not in facts:
        facts.pop("plane", None)
    angles = meta.get("incidence_angles")
    if isinstance(angles, Mapping):
        known = [_number(angles.get(name)) for name in _ANGLES]
        sound = [angle for angle in known if angle is not None and 0 < angle < 90]
        facts |= {"incidence_deg": sound[0]} if sound else {}
    outline = _outline(meta.get("bbox_llh"))
    if outline is not None:
        facts["footprint"] = outline
    return facts


def _number(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None


def _outline(corners: Any) -> list[list[float]] | None:
    """Longitude and latitude of four different corners given as latitude, longitude, height."""
    if not isinstance(corners, list) or len(corners) != 4:
        return None
    points = []
    for corner in corners:
        numbers = [_number(v) for v in corner] if isinstance(corner, list) else []
        if len(numbers) != 3 or numbers[0] is None or numbers[1] is None:
            return None
        if abs(numbers[0]) > 90 or abs(numbers[1]) > 180:
            return None
        points.append([numbers[1], numbers[0]])
    return points if len({tuple(point) for point in points}) == 4 else None
