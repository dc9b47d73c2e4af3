"""From an airborne SAR archive to a text-to-SAR generator and its synthetic corpora.

The names below are the interface for Python, described in docs/api.md. Each is imported when it is
first used: `import sarhpc` itself takes a millisecond.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "Generated": "sarhpc.api.models",
    "Model": "sarhpc.api.models",
    "Results": "sarhpc.api.runs",
    "Run": "sarhpc.api.runs",
    "Tiles": "sarhpc.api.tiles",
    "ablation": "sarhpc.api.ablation",
    "caption": "sarhpc.api.models",
    "catalog_directory": "sarhpc.archive.catalog_builder",
    "cut_tiles": "sarhpc.api.tiles",
    "evaluate": "sarhpc.api.evaluation",
    "generate": "sarhpc.api.models",
    "load_model": "sarhpc.api.models",
    "open_archive": "sarhpc.archive.stac_catalog",
    "open_dataset": "sarhpc.api.reading",
    "open_sar": "sarhpc.archive.formats.readers",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    """The part of the interface with that name (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found = getattr(importlib.import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        from sarhpc.extras import missing_extra

        missing = missing_extra(error)
        if missing is None:
            raise
        raise missing from error
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
