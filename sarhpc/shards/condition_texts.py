"""Texts of the conditions of an image, as captions and prompts state them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONDITIONS = {"band": "band", "gsd": "pixel_m", "incidence": "incidence_deg"}
"""Placeholder of captions and prompts -> entry of `meta.json`."""
_TEXTS = {"band": "{}", "gsd": "{:g}", "incidence": "{:.0f}"}


def metadata_values(meta: Mapping[str, Any]) -> dict[str, str]:
    """Texts of {band}, {gsd} (m) and {incidence} (whole degrees) as far as `meta` knows them."""
    found = {name: meta.get(member) for name, member in CONDITIONS.items()}
    return {name: _TEXTS[name].format(v) for name, v in found.items() if v is not None}
