"""Resampling of optical images to the frame of a SAR tile, from any grid, size or CRS.

Box averages over the width of a tile pixel where the tile is coarser, else bilinear. Not for SAR
images, which may not be interpolated.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from hpc.errors import DataError
from sarhpc.archive.ancillary.interpolation import (
    bilinear,
    box_means,
    node_interpolation,
    pixel_span,
    pixel_step,
)
from sarhpc.archive.pixel_window import Range
from sarhpc.archive.raster_files import has_affine, opened_raster
from sarhpc.archive.zero_collar import ZeroCollar, find_collar

FRAME_TAG = "SARHPC_FRAME"
"""TIFF tag of an optical image without CRS; `scene` says that its affine is in the local frame of
its SAR scene."""

_PARALLEL_PX = 1e-3
"""Grids parallel to within this many image pixels over a tile are resampled axis by axis."""

Affine6 = tuple[float, float, float, float, float, float]


def read_optical(
    path: Path,
    affine: Affine6,
    crs: str | None,
    shape: tuple[int, int],
    *,
    same_frame: bool = False,
    shift: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The optical image resampled to a tile: RGB (H, W, 3) and its coverage (H, W).

    Args:
        path: optical raster; one band is repeated to grey, more than 8 bits are stretched between
            the 2nd and 98th percentile of the whole image.
        affine: tile pixel corners to metres in `crs` (or the local frame); rotation and mirroring
            are followed.
        crs: of the tile; None is a scene's local frame, which an optical image covers only if it
            declares it by the tag `SARHPC_FRAME=scene`, or if `same_frame` is set.
        shape: rows and columns of the tile.
        same_frame: the catalogue declares the image to lie in the scene's local frame.
        shift: (H, W) columns by which the ground imaged at a tile pixel lies farther in range than
            the pixel (`sarhpc.archive.ancillary.terrain_shift`); None for none.

    Raises:
        DataError: the file is missing, corrupt, or has GCPs instead of an affine.
    """
    with opened_raster(path) as dataset:
        if not _is_placed(dataset, path, crs, same_frame):
            return np.zeros((*shape, 3), np.uint8), np.zeros(shape, bool)
        if shift is None:
            rows, cols = _source_coordinates(dataset, affine, crs, shape)
        else:
            rows, cols = _shifted_coordinates(dataset, affine, crs, shift)
        return _sample(dataset, path, shape, rows, cols)


def _is_placed(dataset: Any, path: Path, crs: str | None, same_frame: bool) -> bool:
    """Whether the image can be registered to the tile's frame at all."""
    if not has_affine(dataset):
        if dataset.gcps[0]:
            raise DataError(
                f"{path}: optical images with GCPs are not supported; warp it to a grid, or "
                "remove the asset from the scene"
            )
        return False
    if crs is not None:
        return dataset.crs is not None
    return dataset.crs is None and (same_frame or dataset.tags().get(FRAME_TAG) == "scene")


def _source_coordinates(
    dataset: Any, affine: Affine6, crs: str | None, shape: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixel-corner coordinates (row, col) in the image of every tile pixel's centre.

    Both broadcast to (H, W); where the grids are parallel each is one row or one column.
    """
    height, width = shape
    row = np.arange(height, dtype=np.float64) + 0.5
    col = np.arange(width, dtype=np.float64) + 0.5
    if crs is None or _are_equal(crs, dataset.crs.to_wkt()):
        return _affine_coordinates(~dataset.transform @ Affine(*affine), row, col)
    node_row, to_rows = node_interpolation(row)
    node_col, to_cols = node_interpolation(col)
    a, b, c, d, e, f = affine
    x = a * node_col[None, :] + b * node_row[:, None] + c
    y = d * node_col[None, :] + e * node_row[:, None] + f
    transformer = Transformer.from_crs(crs, dataset.crs.to_wkt(), always_xy=True)
    rows, cols = _to_pixels(dataset, *transformer.transform(x, y))
    return to_rows @ rows @ to_cols.T, to_rows @ cols @ to_cols.T


@lru_cache(maxsize=64)
def _are_equal(crs: str, wkt: str) -> bool:
    return bool(CRS.from_user_input(crs) == CRS.from_wkt(wkt))


def _shifted_coordinates(
    dataset: Any, affine: Affine6, crs: str | None, shift: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As `_source_coordinates`, of points `shift` (H, W) columns beside the pixels' centres."""
    height, width = shift.shape
    beyond = math.ceil(float(np.abs(shift).max())) + 1
    wider = tuple(Affine(*affine) @ Affine.translation(-beyond, 0))[:6]
    grids = _source_coordinates(dataset, wider, crs, (height, width + 2 * beyond))
    at = np.arange(width) + beyond + shift
    first = at.astype(np.int64)
    share = at - first
    row = np.arange(height)[:, None]
    whole = (np.broadcast_to(grid, (height, width + 2 * beyond)) for grid in grids)
    rows, cols = (g[row, first] * (1 - share) + g[row, first + 1] * share for g in whole)
    return rows, cols


def _affine_coordinates(
    chain: Affine, row: NDArray[np.float64], col: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(row, col) in the image from tile rows and columns by one affine `chain`."""
    down, across = row[:, None], col[None, :]
    if max(abs(chain.b) * len(row), abs(chain.d) * len(col)) < _PARALLEL_PX:
        return chain.e * down + chain.f, chain.a * across + chain.c
    if max(abs(chain.a) * len(col), abs(chain.e) * len(row)) < _PARALLEL_PX:
        return chain.d * across + chain.f, chain.b * down + chain.c
    return (
        chain.d * across + chain.e * down + chain.f,
        chain.a * across + chain.b * down + chain.c,
    )


def _to_pixels(
    dataset: Any, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    inverse: Affine = ~dataset.transform
    cols = inverse.a * x + inverse.b * y + inverse.c
    rows = inverse.d * x + inverse.e * y + inverse.f
    return rows, cols


def _sample(
    dataset: Any,
    path: Path,
    shape: tuple[int, int],
    rows: NDArray[np.float64],
    cols: NDArray[np.float64],
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Box-averaged and bilinearly interpolated RGB at (row, col), and where it is covered."""
    covered = ((rows >= 0) & (rows <= dataset.height)) & ((cols >= 0) & (cols <= dataset.width))
    if not covered.any():
        return np.zeros((*shape, 3), np.uint8), np.zeros(shape, bool)
    row_step, col_step = pixel_step(rows), pixel_step(cols)
    row_span = pixel_span(rows, row_step, dataset.height)
    col_span = pixel_span(cols, col_step, dataset.width)
    image, weight = _read(dataset, path, row_span, col_span)
    row_at = (rows - row_span[0]) / row_step - 0.5
    col_at = (cols - col_span[0]) / col_step - 0.5
    if weight is None:
        rgb = bilinear(box_means(image, row_step, col_step), row_at, col_at)
    else:
        # Normalised convolution: invalid pixels have no weight in the mean of their neighbours.
        planes = np.concatenate([image * weight, weight[None]])
        sums = bilinear(box_means(planes, row_step, col_step), row_at, col_at)
        rgb = (sums[:-1] / np.maximum(sums[-1], 1e-6)).astype(np.float32)
        covered = covered & (sums[-1] >= 0.5)
    if not covered.all():
        rgb[:, ~covered] = 0
    whole = (rgb + 0.5).astype(np.uint8)
    picture = np.empty((*shape, 3), np.uint8)
    for channel in range(3):
        picture[..., channel] = whole[channel % len(whole)]
    return picture, covered


def _read(
    dataset: Any, path: Path, rows: tuple[int, int], cols: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """One or three bands (B, h, w) between 0 and 255, and their validity (h, w) as 0 or 1.

    A validity of None means that every pixel is valid.
    """
    if "complex" in dataset.dtypes[0]:
        raise DataError(f"{path} has complex pixels: no optical image; take the asset out")
    window = Window.from_slices(rows, cols)
    raw = dataset.read(_rgb_bands(dataset), window=window)
    declared = MaskFlags.all_valid not in dataset.mask_flag_enums[0]
    valid: NDArray[np.bool_] = np.ones(raw.shape[1:], bool)
    if declared:
        valid &= dataset.dataset_mask(window=window) > 0
    if raw.dtype.kind == "f":
        valid &= np.isfinite(raw).all(axis=0)
    if not declared and not raw.all():
        empty = (raw == 0).all(axis=0)
        if empty.any():
            stat = path.stat()
            collar = _collar(str(path), stat.st_mtime_ns, stat.st_size)
            valid &= ~(empty & collar.covers(rows, cols))
    image = _eight_bit(raw, path)
    if valid.all():
        return image, None
    image[:, ~valid] = 0
    return image, valid.astype(np.float32)


def _rgb_bands(dataset: Any) -> list[int]:
    """Indices of red, green and blue where declared, else of the first three bands or the first."""
    interpretation = list(dataset.colorinterp)
    wanted = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in interpretation for colour in wanted):
        return [interpretation.index(colour) + 1 for colour in wanted]
    plain = [n + 1 for n, colour in enumerate(interpretation) if colour != ColorInterp.alpha]
    return plain[:3] if len(plain) >= 3 else plain[:1]


def _eight_bit(raw: NDArray[Any], path: Path) -> NDArray[np.float32]:
    if raw.dtype == np.uint8:
        return raw.astype(np.float32)
    values = np.nan_to_num(raw.astype(np.float32))
    stat = path.stat()
    low, high = _stretch(str(path), stat.st_mtime_ns, stat.st_size)
    scaled: NDArray[np.float32] = np.clip((values - low) * (255.0 / (high - low)), 0, 255)
    return scaled


@lru_cache(maxsize=64)
def _stretch(path: str, _mtime_ns: int, _size: int) -> tuple[float, float]:
    """2nd and 98th percentile of the whole image, so that all its tiles are stretched equally."""
    with opened_raster(Path(path)) as dataset:
        bands = _rgb_bands(dataset)
        small = (len(bands), min(dataset.height, 1024), min(dataset.width, 1024))
        raw = dataset.read(bands, out_shape=small)
        valid = dataset.dataset_mask(out_shape=small[1:]) > 0
    values = raw[:, valid & np.isfinite(raw).all(axis=0) & (raw != 0).any(axis=0)]
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, (2, 98)))
    return low, max(high, low + 1e-6)


@lru_cache(maxsize=16)
def _collar(path: str, _mtime_ns: int, _size: int) -> ZeroCollar:
    """Zeros connected to the image edge: the nodata of a file that declares none."""
    with opened_raster(Path(path)) as dataset:
        bands = _rgb_bands(dataset)

        def filled(rows: Range, cols: Range) -> NDArray[np.bool_]:
            """Where any band of a window (H, W) is non-zero."""
            return np.asarray(
                (dataset.read(bands, window=Window.from_slices(rows, cols)) != 0).any(0)
            )

        block = dataset.block_shapes[0]
        return find_collar(dataset.shape, filled, pixel_bytes=4 * len(bands), block=block)
