"""Which distance sees which defect, as it was measured, for the page of every evaluation.

`pytest -s tests/unit/measures/test_sensitivity.py` prints the table and holds this one to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from sarhpc.measures.distances import DISTANCES

SOURCE = "100 scenes of the procedural archive, 40 against 40 tiles of 128 px"
_ROWS: Mapping[str, tuple[float, ...]] = {
    "none": (0.00, 0.02, 0.01, 0.01, 0.01, 0.00, 0.00, 0.01, 0.00, 0.00, 0.00, 0.00),
    "gain of 1 dB": (0.00, 0.02, 0.05, 0.05, 0.05, 0.08, 0.00, 0.01, 0.00, 0.00, 0.00, 0.00),
    "range flip": (0.00, 0.02, 0.01, 0.01, 0.01, 0.00, 0.00, 0.01, 0.00, 0.00, 0.00, 0.00),
    "azimuth flip": (0.00, 0.02, 0.01, 0.01, 0.01, 0.00, 0.00, 0.01, 0.00, 0.00, 0.00, 0.00),
    "rotation by 90 degrees":
        (0.00, 0.02, 0.01, 0.01, 0.01, 0.00, 0.00, 0.01, 0.01, 0.02, 0.00, 0.01),
    "blur of 0.6 px": (1.00, 1.00, 1.00, 1.00, 1.00, 0.21, 0.00, 0.07, 1.00, 1.00, 0.01, 1.00),
    "8 x 8 shuffle": (0.30, 0.02, 0.01, 0.01, 0.01, 0.00, 0.00, 0.01, 1.00, 1.00, 0.23, 1.00),
    "white re-speckle": (0.14, 0.01, 0.02, 0.02, 0.02, 0.02, 0.00, 0.04, 1.00, 1.00, 0.04, 1.00),
    "grid lines of 0.5 dB":
        (0.00, 0.02, 0.01, 0.00, 0.01, 0.00, 0.00, 0.01, 0.00, 0.00, 0.92, 0.00),
    "targets 10 dB lower": (0.01, 0.18, 0.01, 0.01, 0.01, 0.01, 0.00, 1.00, 0.01, 0.04, 0.00, 0.09),
    "one mean level": (0.00, 0.02, 0.01, 0.01, 0.01, 0.00, 1.00, 0.01, 0.00, 0.00, 0.00, 0.00),
}  # fmt: skip
POWERS: Mapping[str, Mapping[str, float]] = {
    defect: dict(zip(DISTANCES, powers, strict=True)) for defect, powers in _ROWS.items()
}
"""Defect -> distance -> share of draws beyond the null."""
