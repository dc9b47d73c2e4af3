"""What the header of any SAR image must hold, whichever format it was read from.

A damaged geotransform or annotation often still parses. A grid of pixels of 1e-60 m would keep the
tile plan busy for ever, and a coordinate of infinity ends far from its file.
"""

from __future__ import annotations

import math
from pathlib import Path

from hpc.errors import DataError
from sarhpc.archive.scene import SarHeader

_SMALLEST_M, _LARGEST_M = 1e-4, 1e5
"""Bounds of a pixel's side, metres."""
_FARTHEST_M = 1e9
"""Bound of map coordinates, metres."""


def check_header(header: SarHeader, path: Path) -> None:
    """Raise DataError unless the header of the SAR image at `path` can be right.

    Raises:
        DataError: the message says which value cannot be.
    """
    wrong = next((text for text, is_sound in _checks(header) if not is_sound), None)
    if wrong is not None:
        raise DataError(
            f"{path} has {wrong}, which no SAR image has; restore the file, correct its "
            "declaration, or leave it out"
        )


def _checks(header: SarHeader) -> list[tuple[str, bool]]:
    """Values, and whether each is sound."""
    a, b, c, d, e, f = header.affine
    area, corners = abs(a * e - b * d), header.corners or ()
    incidence = header.incidence_deg
    sides = (*header.spacing_m, math.hypot(a, d), math.hypot(b, e))
    return [
        (f"an image of {header.shape} pixels", min(header.shape) > 0),
        (
            f"pixels of {sides[0]:g} x {sides[1]:g} m",
            all(_SMALLEST_M <= side <= _LARGEST_M for side in sides),
        ),
        (f"map coordinates ({c:g}, {f:g})", max(abs(c), abs(f)) <= _FARTHEST_M),
        (f"pixels of {area:g} m2 on a line", area > _SMALLEST_M**2),
        (f"{header.looks:g} looks", 0 < header.looks < math.inf),
        (f"an incidence of {incidence} degrees", incidence is None or 0 < incidence < 90),
        (
            f"corners at {corners[:1]} degrees",
            all(abs(lon) <= 360 and abs(lat) <= 90 for lon, lat in corners),
        ),
    ]
