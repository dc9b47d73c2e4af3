"""Reading values of HDF5 files, with errors that name the cause and a remedy."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj.exceptions import CRSError

from hpc.errors import DataError

Array = NDArray[np.float64]

_MOST_BYTES = 256 << 20
"""Of coordinates, tables and texts, which are read whole."""


@contextlib.contextmanager
def hdf5_errors(path: Path) -> Iterator[None]:
    """Run a block that reads `path`; errors of HDF5 or of the layout become DataError.

    Raises:
        DataError: missing, truncated or corrupt file, or one in another layout.
    """
    try:
        yield
    except (OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError, CRSError) as error:
        reason = (str(error).strip("'\"") or type(error).__name__).splitlines()[0]
        if not path.exists():
            reason = "there is no such file"
        raise DataError(
            f"cannot read {path} as HDF5 in the layout of NISAR: {reason}; restore the file, or "
            "leave it out"
        ) from error


def shape_of(dataset: Any) -> tuple[int, int]:
    """Rows and columns of an image."""
    height, width = dataset.shape
    return int(height), int(width)


def step_of(values: Array) -> float:
    """Mean step of monotonic coordinates.

    Raises:
        ValueError: there is only one.
    """
    if len(values) < 2:
        raise ValueError("an image of one row or column")
    return float((values[-1] - values[0]) / (len(values) - 1))


def values(dataset: Any) -> NDArray[Any]:
    """All values of a dataset.

    Raises:
        ValueError: it declares more than 256 MiB.
    """
    if dataset.nbytes > _MOST_BYTES:
        raise ValueError(f"{dataset.name} declares {dataset.nbytes} bytes of metadata")
    return np.asarray(dataset[()])


def vector(group: Any, name: str) -> Array:
    """A dataset as numbers (N,)."""
    return np.asarray(values(group[name]), np.float64).reshape(-1)


def number(group: Any, name: str) -> float:
    """The first number of a dataset."""
    return float(values(group[name]).reshape(-1)[0])


def optional(group: Any, name: str) -> float | None:
    """The first number of a dataset; None without it."""
    return number(group, name) if name in group else None


def text(group: Any, name: str) -> str | None:
    """The first text of a dataset; None without it."""
    if name not in group:
        return None
    value = values(group[name]).reshape(-1)[0]
    return (value.decode() if isinstance(value, bytes) else str(value)).strip()


def units(group: Any, name: str) -> str:
    """The attribute `units` of a dataset; empty without it."""
    value = group[name].attrs.get("units", "")
    return value.decode() if isinstance(value, bytes) else str(value)


_EPOCH = re.compile(
    r"seconds since\s+(\d{4}-\d{2}-\d{2})(?:[T ]+(\d{2}:\d{2}:\d{2})(?:\.(\d*))?)?\s*(?:Z|UTC)?",
    re.IGNORECASE,
)


def seconds_between(later: str, earlier: str) -> float:
    """Seconds from the epoch of `later` to that of `earlier`, units of times as CF writes them.

    Added to times counted from the epoch of `earlier`, they are counted from that of `later`. Equal
    texts differ by 0 whatever they say.

    Raises:
        ValueError: one of two different texts is no epoch.
    """
    if later.strip() == earlier.strip():
        return 0.0
    whole, fraction = zip(*(_epoch(text) for text in (later, earlier)), strict=True)
    return (whole[1] - whole[0]).total_seconds() + fraction[1] - fraction[0]


def _epoch(text: str) -> tuple[datetime, float]:
    found = _EPOCH.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"times in {text!r}, which names no epoch (seconds since ...)")
    day, clock, fraction = found.groups()
    moment = datetime.fromisoformat(f"{day}T{clock or '00:00:00'}").replace(tzinfo=UTC)
    return moment, float(f"0.{fraction or 0}")
