"""Opening files that others wrote: rasters by an allow-list of drivers, HDF5 without references.

A file is read alone. What would send the reader to another file or to a network is refused or
not read, and what a file declares is bounded by the bytes it has before anything is decoded.
No other module opens a raster or an HDF5 file (`tests/unit/house/test_openers.py`).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import rasterio
from affine import Affine
from rasterio.io import DatasetReader

from hpc.errors import DataError
from sarhpc.archive.tiff_directory import GDAL_METADATA, bytes_of_tag

DRIVERS = ("GTiff", "NITF", "JP2OpenJPEG", "JP2KAK", "PNG", "JPEG")
"""Drivers of GDAL that may open a file. None of them reads a list of other files, as VRT does."""

GDAL_OPTIONS = {
    # No side car is looked for: .ovr and .msk would be opened by any driver, .aux.xml names files.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": "none",
}
"""Configuration of GDAL under which files are opened and read."""

FREE_BYTES = 8 << 30
"""Decoded size that any file may declare; more needs a file of `1 / MOST_EXPANSION` of it."""
MOST_EXPANSION = 1000
"""Decoded bytes per byte of the file: beyond what deflate reaches on constant pixels."""
FREE_BLOCK_BYTES = 256 << 20
"""Decoded size that a block or chunk, which is decoded whole, may declare in any file."""
MOST_METADATA_BYTES = 512 << 10
"""GDAL's own metadata in a TIFF; the time to read them grows with their square."""
MOST_OBJECTS = 100_000
"""Links of an HDF5 file that are checked; more are refused."""
MOST_LEVELS = 64
"""Groups of an HDF5 file below each other; each object is found by going through all above it."""

_SIZES = {"complex_int16": 4}
_REFERENCES = {"OVERVIEWS": "OVERVIEW_FILE", "GEOLOCATION": "X_DATASET"}
"""Metadata by which GDAL opens a further file, with any driver: domain -> key."""


def require_local_file(path: Path) -> None:
    """Raise an error unless `path` is a regular file of the file system.

    Raises:
        DataError: it is a path by which GDAL reaches archives and networks, a device or a pipe.
        FileNotFoundError: there is no such file.
    """
    if os.path.abspath(path).startswith("/vsi"):
        raise DataError(
            f"{path} is a virtual path of GDAL, which reaches archives and networks; copy the data "
            "to a folder and refer to the file"
        )
    # Opening a pipe would wait for its writer.
    if not stat.S_ISREG(path.stat().st_mode):
        raise DataError(f"{path} is not a regular file; leave it out")


def require_bounded(path: Path, decoded: int, block: int = 0) -> None:
    """Raise an error if the file at `path` declares more bytes than it can hold.

    Args:
        path: the file.
        decoded: bytes of all pixels, as declared.
        block: bytes of the largest block or chunk, as declared.

    Raises:
        DataError: either is beyond the limits of this module.
    """
    held = path.stat().st_size
    limits = ((decoded, FREE_BYTES, "pixels"), (block, FREE_BLOCK_BYTES, "a block of pixels"))
    for declared, free, what in limits:
        if declared > max(free, MOST_EXPANSION * held):
            raise DataError(
                f"{path} has {held} bytes and declares {what} of {declared / 1e9:.1f} GB, more "
                "than it can hold; cut it to the part that has data, or leave it out"
            )


def open_raster(path: Path, drivers: tuple[str, ...] = DRIVERS) -> DatasetReader:
    """The raster at `path`, opened by one of `drivers`; errors of GDAL are left to the caller.

    Raises:
        DataError: no regular file, a file that refers to another one or depends on a side car, or
            one that declares more pixels than it can hold.
    """
    require_local_file(path)
    if bytes_of_tag(path, GDAL_METADATA) > MOST_METADATA_BYTES:
        raise DataError(
            f"{path} has more than {MOST_METADATA_BYTES} bytes of GDAL metadata; write it anew "
            "without them (`gdal_translate -nomd`), or leave it out"
        )
    with rasterio.Env(**GDAL_OPTIONS):
        dataset = DatasetReader(Path(os.path.abspath(path)), driver=list(drivers))
    try:
        _require_no_reference(dataset, path)
        require_bounded(path, _decoded_bytes(dataset), _block_bytes(dataset))
        _require_complete(dataset, path)
    except BaseException:
        dataset.close()
        raise
    return dataset


def _require_no_reference(dataset: Any, path: Path) -> None:
    for domain, key in _REFERENCES.items():
        if key in dataset.tags(ns=domain):
            raise DataError(
                f"{path} refers to another file ({domain}: {key}), which is not followed; write it "
                "anew without that metadata, or leave it out"
            )


def _pixel_bytes(dtype: str) -> int:
    return _SIZES.get(dtype) or np.dtype(dtype).itemsize


def _decoded_bytes(dataset: Any) -> int:
    pixel = sum(_pixel_bytes(dtype) for dtype in dataset.dtypes)
    return int(pixel * dataset.width * dataset.height)


def _block_bytes(dataset: Any) -> int:
    sizes = zip(dataset.block_shapes, dataset.dtypes, strict=True)
    return max((h * w * _pixel_bytes(dtype) for (h, w), dtype in sizes), default=0)


def _require_complete(dataset: Any, path: Path) -> None:
    """Raise DataError if a side car, which is not read, says what the file itself does not."""
    if path.with_name(f"{path.name}.msk").exists():
        raise DataError(
            f"{path} has its mask in {path.name}.msk, which is not read; put it into the file by "
            "`gdal_translate --config GDAL_TIFF_INTERNAL_MASK YES`"
        )
    try:
        beside = path.with_name(f"{path.name}.aux.xml").read_bytes()[: 1 << 20]
    except OSError:
        return
    placed = dataset.transform != Affine.identity() or bool(dataset.gcps[0])
    own = {
        b"<NoDataValue": dataset.nodata is not None,
        b"<GeoTransform": placed,
        b"<GCPList": placed,
        b"<SRS": dataset.crs is not None or bool(dataset.gcps[0]),
    }
    lacking = [word.decode()[1:] for word, there in own.items() if word in beside and not there]
    if lacking:
        raise DataError(
            f"{path} has its {', '.join(lacking)} only in {path.name}.aux.xml, which is not read; "
            "put it into the file by `gdal_translate`"
        )


def open_hdf5(path: Path, cache_bytes: int | None = None) -> h5py.File:
    """The HDF5 file at `path`; errors of HDF5 are left to the caller.

    Args:
        path: the file.
        cache_bytes: of chunks, per dataset; None for the default.

    Raises:
        DataError: no regular file, a link to another file, data stored outside or put together
            from datasets, a dataset that declares more than the file can hold, or too many objects.
    """
    require_local_file(path)
    file = h5py.File(path, "r", rdcc_nbytes=cache_bytes)
    try:
        _check_links(file, path)
    except BaseException:
        file.close()
        raise
    return file


def _check_links(file: h5py.File, path: Path) -> None:
    followed = (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT)
    names: list[bytes] = []
    count = 0

    # A callback that returns a value ends the visit with it; an exception would be lost.
    def visit(name: bytes, info: Any) -> str | None:
        """What is wrong with a link; None to go on."""
        nonlocal count
        count += 1
        if count > MOST_OBJECTS:
            return f"holds more than {MOST_OBJECTS} objects"
        if name.count(b"/") > MOST_LEVELS:
            return f"has more than {MOST_LEVELS} groups below each other"
        if info.type not in followed:
            return f"links {name.decode(errors='replace')} to another file"
        if info.type == h5py.h5l.TYPE_HARD:
            names.append(name)
        return None

    fault = file.id.links.visit(visit, info=True)
    for name in () if fault else names:
        item = h5py.h5o.open(file.id, name)
        fault = _fault_of(item, path) if isinstance(item, h5py.h5d.DatasetID) else None
        if fault:
            fault = f"{fault} ({name.decode(errors='replace')})"
            break
    if fault:
        raise DataError(
            f"{path} {fault}, which is not followed; write it anew as one whole file (h5repack), "
            "or leave it out"
        )


def _fault_of(item: h5py.h5d.DatasetID, path: Path) -> str | None:
    """Why a dataset is not read; None for one whose values lie in the file."""
    plist = item.get_create_plist()
    if plist.get_external_count():
        return "stores a dataset in another file"
    layout = plist.get_layout()
    if layout == h5py.h5d.VIRTUAL:
        return "puts a virtual dataset together from others"
    size = item.get_type().get_size()
    chunk = int(np.prod(plist.get_chunk(), dtype=object)) if layout == h5py.h5d.CHUNKED else 0
    count = int(np.prod(item.shape or (), dtype=object))
    require_bounded(path, count * size, chunk * size)
    return None
