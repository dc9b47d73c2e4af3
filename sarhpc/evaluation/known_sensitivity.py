"""Which distance sees which defect, as measured: `tests/unit/measures/test_sensitivity.py`."""

from __future__ import annotations

from collections.abc import Mapping

SOURCE = "100 scenes of the procedural archive, 40 against 40 tiles of 128 px"
POWERS: Mapping[str, Mapping[str, float]] = {"none": {}}
