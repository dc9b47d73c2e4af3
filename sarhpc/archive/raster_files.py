"""Raster files: one GDAL handle per thread, a small cache, errors with a remedy."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError

from hpc.errors import DataError
from sarhpc.archive.opening import DRIVERS, GDAL_OPTIONS, open_raster

# A file without geotransform is refused or gets a local frame; the warning is redundant.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

CACHE_MB = 64
"""GDAL's block cache per process: a dozen workers share the memory of a node."""


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Run a block that reads `path`; errors of GDAL become DataError.

    Raises:
        DataError: missing, empty, truncated or corrupt file.
    """
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE_MB, GDAL_NUM_THREADS=1, **GDAL_OPTIONS):
            yield
    except (RasterioError, RasterioIOError, OSError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        if "not recognized" in reason:
            reason = f"it is in none of the formats that are opened ({', '.join(DRIVERS)})"
        if not os.path.exists(path):
            reason = "there is no such file"
        elif path.stat().st_size == 0:
            reason = "the file is empty"
        raise DataError(
            f"cannot read {path}: {reason}; restore or convert the file, or take the scene out of "
            "the archive"
        ) from error


@contextmanager
def opened_raster(path: Path, drivers: tuple[str, ...] = DRIVERS) -> Iterator[Any]:
    """The raster at `path` for a block that reads it; see `open_raster`.

    Raises:
        DataError: missing, empty, truncated or corrupt file, or one that is not opened.
    """
    with readable(path), open_raster(path, drivers) as dataset:
        yield dataset


class RasterHandles:
    """The raster file at `path`, opened once per thread.

    GDAL datasets must not be shared between threads, and a lock around a shared one would
    serialise all readers.
    """

    def __init__(self, path: Path) -> None:
        """Remember `path`; nothing is opened yet."""
        self.path = path
        self._local = threading.local()
        self._opened: list[Any] = []

    def get(self) -> Any:
        """This thread's dataset of the file.

        Windows are read at full resolution, which never touches overviews. (The open option
        OVERVIEW_LEVEL=NONE would say so too, but leaves the transform of a file without one
        uninitialised in GDAL 3.10.)

        Raises:
            DataError: the file cannot be opened.
        """
        dataset = getattr(self._local, "dataset", None)
        if dataset is None or dataset.closed:
            with readable(self.path):
                dataset = open_raster(self.path)
            self._local.dataset = dataset
            self._opened.append(dataset)
        return dataset

    def close(self) -> None:
        """Close the datasets of all threads."""
        while self._opened:
            self._opened.pop().close()


def has_affine(dataset: Any) -> bool:
    """Whether the file has a geotransform (identity means that it has none)."""
    return bool(dataset.transform != Affine.identity())


def crs_text(dataset: Any) -> str | None:
    """The CRS as `EPSG:n` where it has a code, else as WKT; None without a CRS."""
    if dataset.crs is None:
        return None
    code = dataset.crs.to_epsg()
    return f"EPSG:{code}" if code is not None else str(dataset.crs.to_wkt())
