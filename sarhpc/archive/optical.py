"""The optical image in the frame of a SAR tile, whatever grid, size or CRS it is stored in.

Optical images may be resampled: the box average over each tile pixel's width when the tile is
coarser, bilinear between pixels else. SAR never passes through here.
"""

from __future__ import annotations

from functools import lru_cache
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window
from scipy.ndimage import map_coordinates

from hpc.errors import DataError
from sarhpc.archive.handle import has_affine, readable
from sarhpc.archive.validity import ZeroCollar, measure_collar

FRAME_TAG = "SARHPC_FRAME"
"""TIFF tag of an optical image without CRS; `scene` says that its affine is in the local frame of
the SAR scene it belongs to."""

_NODE_PX = 16
"""Spacing of exactly projected nodes; between them coordinates are linear (error under 1e-3 px)."""

Affine6 = tuple[float, float, float, float, float, float]


def read_optical(
    path: Path,
    affine: Affine6,
    crs: str | None,
    shape: tuple[int, int],
    *,
    same_frame: bool = False,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The optical image resampled to a tile: RGB (H, W, 3) and its coverage (H, W).

    Args:
        path: optical raster; one band is repeated to grey, more than 8 bits are stretched between
            the 2nd and 98th percentile of the whole image.
        affine: tile pixel corners to metres in `crs` (or the local frame); rotation and mirroring
            are followed.
        crs: of the tile; None is a scene's local frame, which an optical image covers only if it
            declares the same frame by tag `SARHPC_FRAME=scene`, or `same_frame` says so.
        shape: rows and columns of the tile.
        same_frame: the catalogue declares the image to lie in the scene's local frame.

    Raises:
        DataError: the file is missing, corrupt, or has GCPs in place of an affine.
    """
    with readable(path), rasterio.open(path) as dataset:
        if not _is_placed(dataset, path, crs, same_frame):
            return np.zeros((*shape, 3), np.uint8), np.zeros(shape, bool)
        rows, cols = _source_coordinates(dataset, affine, crs, shape)
        return _sample(dataset, path, rows, cols)


def _is_placed(dataset: Any, path: Path, crs: str | None, same_frame: bool) -> bool:
    """Whether the image can be laid into the tile's frame at all."""
    if not has_affine(dataset):
        if dataset.gcps[0]:
            raise DataError(
                f"{path}: optical images with GCPs are not supported yet; warp it to a grid, or "
                "take the asset out of the scene"
            )
        return False
    if crs is not None:
        return dataset.crs is not None
    return dataset.crs is None and (same_frame or dataset.tags().get(FRAME_TAG) == "scene")


def _source_coordinates(
    dataset: Any, affine: Affine6, crs: str | None, shape: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixel-corner coordinates (row, col) in the image of every tile pixel's centre, (H, W)."""
    height, width = shape
    row = np.arange(height, dtype=np.float64) + 0.5
    col = np.arange(width, dtype=np.float64) + 0.5
    if crs is None or CRS.from_user_input(crs) == CRS.from_wkt(dataset.crs.to_wkt()):
        return _to_pixels(dataset, *_to_map(affine, row[:, None], col[None, :]))
    node_row, to_rows = _interpolation(row)
    node_col, to_cols = _interpolation(col)
    transformer = Transformer.from_crs(crs, dataset.crs.to_wkt(), always_xy=True)
    nodes = transformer.transform(*_to_map(affine, node_row[:, None], node_col[None, :]))
    rows, cols = _to_pixels(dataset, nodes[0], nodes[1])
    return to_rows @ rows @ to_cols.T, to_rows @ cols @ to_cols.T


def _to_map(
    affine: Affine6, row: NDArray[np.float64], col: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b, c, d, e, f = affine
    return a * col + b * row + c, d * col + e * row + f


def _to_pixels(
    dataset: Any, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    inverse: Affine = ~dataset.transform
    cols = inverse.a * x + inverse.b * y + inverse.c
    rows = inverse.d * x + inverse.e * y + inverse.f
    return rows, cols


def _interpolation(
    positions: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Node positions and the matrix that interpolates linearly from them to `positions`."""
    count = max(2, -(-len(positions) // _NODE_PX) + 1)
    nodes = np.linspace(positions[0] - 0.5, positions[-1] + 0.5, count)
    unit = np.eye(count)
    matrix = np.stack([np.interp(positions, nodes, unit[k]) for k in range(count)], axis=1)
    return nodes, matrix


def _sample(
    dataset: Any, path: Path, rows: NDArray[np.float64], cols: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Box-averaged and bilinearly interpolated RGB at (row, col), and where it is covered."""
    shape = rows.shape
    inside = np.isfinite(rows) & np.isfinite(cols)
    inside &= (rows >= 0) & (rows <= dataset.height) & (cols >= 0) & (cols <= dataset.width)
    if not inside.any():
        return np.zeros((*shape, 3), np.uint8), np.zeros(shape, bool)
    row_step, col_step = (_step(coordinate, inside) for coordinate in (rows, cols))
    window = _window(dataset, rows[inside], cols[inside], row_step, col_step)
    image, weight = _read(dataset, path, window)
    image, weight = _box_average(image, weight, row_step, col_step)
    row_at = np.where(inside, (rows - window.row_off) / row_step - 0.5, -9.0)
    col_at = np.where(inside, (cols - window.col_off) / col_step - 0.5, -9.0)
    at = np.stack([row_at, col_at])
    # The half pixel between the outermost centres and the image edge repeats the edge.
    share = map_coordinates(weight, at, order=1, mode="nearest")
    share[~inside] = 0
    bands = [map_coordinates(band * weight, at, order=1, mode="nearest") for band in image]
    rgb = np.stack(bands, axis=-1) / np.maximum(share, 1e-6)[..., None]
    covered = share >= 0.5
    rgb[~covered] = 0
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8), covered


def _step(coordinate: NDArray[np.float64], inside: NDArray[np.bool_]) -> int:
    """Image pixels, along one image axis, in the width of a tile pixel: at least 1."""
    steps = [
        float(np.median(np.abs(np.diff(coordinate, axis=axis)[np.diff(inside, axis=axis) == 0])))
        if coordinate.shape[axis] > 1
        else 1.0
        for axis in (0, 1)
    ]
    return max(1, round(hypot(*steps)))


def _window(
    dataset: Any,
    rows: NDArray[np.float64],
    cols: NDArray[np.float64],
    row_step: int,
    col_step: int,
) -> Window:
    """The part of the image around the points, with one box to spare on every side.

    Its corner lies on a multiple of the box, so that neighbouring tiles see the same averages.
    """

    def span(values: NDArray[np.float64], step: int, size: int) -> tuple[int, int]:
        first = max(0, (int(values.min()) // step - 1) * step)
        last = min(size, int(np.ceil(values.max())) + 2 * step)
        return first, max(last, first + 1)

    return Window.from_slices(
        span(rows, row_step, dataset.height), span(cols, col_step, dataset.width)
    )


def _read(
    dataset: Any, path: Path, window: Window
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Three bands (3, h, w) between 0 and 255, and their validity (h, w) as 0 or 1."""
    bands = _rgb_bands(dataset)
    raw = dataset.read(bands, window=window)
    valid = (dataset.dataset_mask(window=window) > 0) & np.isfinite(raw).all(axis=0)
    empty = (raw == 0).all(axis=0)
    if (empty & valid).any() and MaskFlags.all_valid in dataset.mask_flag_enums[0]:
        stat = path.stat()
        collar = _collar(str(path), stat.st_mtime_ns, stat.st_size)
        first_row, first_col = int(window.row_off), int(window.col_off)
        rows = (first_row, first_row + raw.shape[1])
        valid &= ~(empty & collar.covers(rows, (first_col, first_col + raw.shape[2])))
    image = _eight_bit(raw, path)
    image[:, ~valid] = 0
    if len(bands) == 1:
        image = np.repeat(image, 3, axis=0)
    return image, valid.astype(np.float32)


def _rgb_bands(dataset: Any) -> list[int]:
    """Indices of red, green and blue where declared, else of the first three bands, or one."""
    interpretation = list(dataset.colorinterp)
    wanted = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in interpretation for colour in wanted):
        return [interpretation.index(colour) + 1 for colour in wanted]
    plain = [n + 1 for n, colour in enumerate(interpretation) if colour != ColorInterp.alpha]
    return plain[:3] if len(plain) >= 3 else plain[:1]


def _eight_bit(raw: NDArray[Any], path: Path) -> NDArray[np.float32]:
    values = np.nan_to_num(raw.astype(np.float32))
    if raw.dtype == np.uint8:
        return values
    stat = path.stat()
    low, high = _stretch(str(path), stat.st_mtime_ns, stat.st_size)
    scaled: NDArray[np.float32] = np.clip((values - low) * (255.0 / (high - low)), 0, 255)
    return scaled


@lru_cache(maxsize=64)
def _stretch(path: str, _mtime_ns: int, _size: int) -> tuple[float, float]:
    """2nd and 98th percentile of the whole image: every tile of it is stretched alike."""
    with readable(Path(path)), rasterio.open(path) as dataset:
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
    """Where zeros reach the image's edge: nodata of a file that declares none."""
    with readable(Path(path)), rasterio.open(path) as dataset:
        bands = _rgb_bands(dataset)
        step = max(1, (32 << 20) // (dataset.width * len(bands) * 4))
        height, width = dataset.height, dataset.width
        windows = (Window(0, row, width, min(step, height - row)) for row in range(0, height, step))
        strips = (
            (part.row_off, (dataset.read(bands, window=part) != 0).any(0)) for part in windows
        )
        return measure_collar((height, width), strips)


def _box_average(
    image: NDArray[np.float32], weight: NDArray[np.float32], row_step: int, col_step: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Means over boxes of `row_step` x `col_step` valid pixels, and the share of valid ones."""
    if row_step == col_step == 1:
        return image, weight
    pad = (-weight.shape[0] % row_step, -weight.shape[1] % col_step)
    shares = _boxes(np.pad(weight, ((0, pad[0]), (0, pad[1]))), row_step, col_step)
    padded: NDArray[np.float32] = np.pad(image * weight, ((0, 0), (0, pad[0]), (0, pad[1])))
    sums = np.stack([_boxes(band, row_step, col_step) for band in padded])
    return (sums / np.maximum(shares, 1e-6)).astype(np.float32), shares


def _boxes(plane: NDArray[np.float32], row_step: int, col_step: int) -> NDArray[np.float32]:
    height, width = plane.shape[0] // row_step, plane.shape[1] // col_step
    means: NDArray[np.float32] = plane.reshape(height, row_step, width, col_step).mean(axis=(1, 3))
    return means
