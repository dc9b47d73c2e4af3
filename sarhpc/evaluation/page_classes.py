"""The section of the page on measures by class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NORMAL_95 = 1.96


def section(block: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The variables of `page_classes.html.j2`: a row for each class and set."""
    return {
        "classes": {
            name: [_row(one, of, sets["real"]) for one, of in sets.items()]
            for name, sets in block["classes"].items()
        }
    }


def _row(name: str, of: Mapping[str, float], real: Mapping[str, float]) -> dict[str, Any]:
    row: dict[str, Any] = {"set": name, **of, "difference_db": None}
    if name != "real":
        row["difference_db"] = of["mean_db"] - real["mean_db"]
        row["interval_db"] = NORMAL_95 * math.hypot(of["mean_db_error"], real["mean_db_error"])
        row["seen"] = abs(row["difference_db"]) > row["interval_db"]
    return row
