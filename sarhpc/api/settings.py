"""Settings given from Python, as the overrides that a command line would give."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Settings = Mapping[str, Any] | Sequence[str]
"""`{"tile.tile_px": 128}`, or the words of a command line, `["tile.tile_px=128"]`."""


def overrides(settings: Settings | None) -> list[str]:
    """The settings as words `key=value`."""
    if not isinstance(settings, Mapping):
        return list(settings or ())
    return [f"{key}={json.dumps(value, default=_plain)}" for key, value in settings.items()]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a setting cannot be a {type(value).__name__}: {value!r:.60}")
