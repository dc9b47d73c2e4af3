"""Geolocation of scenes with ground control points (GCPs) and no affine.

For a satellite image in its range and azimuth grid the error of a single affine is hundreds of
metres. Two models are fitted in metres, a thin-plate spline through all points and a cubic
polynomial, and the one with the smaller leave-one-out error is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from hpc.errors import DataError
from sarhpc.archive.scene import Affine6

Array = NDArray[np.float64]
Kind = Literal["tps", "cubic"]

LEAST_GCPS = 4
"""Least number of points; fewer determine an affine at best."""

LEAST_FOR_CUBIC = 16
"""Least number of points for a cubic, which has ten coefficients per axis."""

_POLAR_DEGREES = 84.0
_FIT_STEPS = 5
_AT_ONCE = 4096
_SINGULAR = 1e12


@dataclass(frozen=True)
class Geolocation:
    """A model from pixel corners (col, row) of the stored image to metres in `crs`."""

    crs: str
    kind: Kind
    gcps: int
    """Distinct ground control points."""
    held_out_m: float
    """Root mean square leave-one-out error of the points, metres."""
    affine_held_out_m: float
    """The same for a single affine, for comparison."""
    origin: Array
    """Pixel position (2,) = (col, row) in the middle of the points."""
    scale: Array
    """Half extent (2,) of the points, pixels."""
    nodes: Array
    """Normalised positions (n, 2) of the spline's points; none for a polynomial."""
    weights: Array
    """Coefficients (n + terms, 2) of the spline's kernels, then of the polynomial, metres."""

    def to_map(self, positions: Array) -> Array:
        """Map coordinates (..., 2) as (x, y) of pixel positions (..., 2) as (col, row)."""
        flat = (positions.reshape(-1, 2) - self.origin) / self.scale
        parts = [self._placed(flat[i : i + _AT_ONCE]) for i in range(0, len(flat), _AT_ONCE)]
        return np.concatenate(parts).reshape(positions.shape)

    def _placed(self, unit: Array) -> Array:
        design = _polynomial(unit, 3 if self.kind == "cubic" else 1)
        if self.kind == "tps":
            design = np.hstack([_kernel(unit, self.nodes), design])
        return design @ self.weights

    def affine_over(self, corner: tuple[float, float], extent: tuple[float, float]) -> Affine6:
        """The affine that fits best over a rectangle of pixels, by least squares.

        Args:
            corner: (col, row) of the rectangle.
            extent: its size in (cols, rows).
        """
        return fit_affine(lattice(corner, extent), self.to_map(lattice(corner, extent)))

    def to_json(self) -> dict[str, Any]:
        """Model and errors, as written to metadata."""
        return {
            "model": self.kind,
            "gcps": self.gcps,
            "held_out_m": round(self.held_out_m, 3),
            "affine_held_out_m": round(self.affine_held_out_m, 3),
        }


def lattice(corner: tuple[float, float], extent: tuple[float, float]) -> Array:
    """Positions (25, 2) as (col, row), spread evenly over a rectangle, its edges included."""
    steps = np.linspace(0, 1, _FIT_STEPS)
    col, row = np.meshgrid(corner[0] + extent[0] * steps, corner[1] + extent[1] * steps)
    return np.stack([col.ravel(), row.ravel()], axis=1)


def fit_affine(positions: Array, points: Array) -> Affine6:
    """The least-squares affine from pixel positions (n, 2) to map points (n, 2)."""
    # Around the mean: map coordinates are a million times larger than the differences.
    middle, centre = positions.mean(axis=0), points.mean(axis=0)
    slope, *_ = np.linalg.lstsq(positions - middle, points - centre, rcond=None)
    (a, d), (b, e) = slope
    c, f = centre - middle @ slope
    return (float(a), float(b), float(c), float(d), float(e), float(f))


def central_spacing(placement: Geolocation, shape: tuple[int, int]) -> tuple[float, float]:
    """Ground spacing (row, col) of pixels in the middle of an image (H, W), metres."""
    height, width = shape
    # Over a tenth of the image: a spline is locally distorted near its points.
    extent = (max(width / 10, 1.0), max(height / 10, 1.0))
    corner = ((width - extent[0]) / 2, (height - extent[1]) / 2)
    a, b, _, d, e, _ = placement.affine_over(corner, extent)
    return math.hypot(b, e), math.hypot(a, d)


def fit_gcps(gcps: Sequence[Any], crs: Any, path: Path) -> Geolocation:
    """The better of spline and cubic fitted to ground control points `gcps` (row, col, x, y).

    Geographic points are fitted in metres of the UTM (or polar stereographic) zone at their
    middle.

    Raises:
        DataError: too few points, no CRS, or points that determine no surface.
    """
    if crs is None:
        raise DataError(f"{path} has GCPs without a CRS; write it with one, or leave it out")
    # GDAL keeps repeated points, which make the spline system singular.
    distinct = list({(gcp.col, gcp.row): gcp for gcp in gcps}.values())
    pixels = np.array([(gcp.col, gcp.row) for gcp in distinct], float).reshape(-1, 2)
    if len(distinct) < LEAST_GCPS:
        raise DataError(
            f"{path} has {len(distinct)} distinct GCPs, and at least {LEAST_GCPS} are needed; "
            "add some, or write an affine"
        )
    code, points = _in_metres(np.array([(gcp.x, gcp.y) for gcp in distinct]), crs, path)
    origin = (pixels.max(axis=0) + pixels.min(axis=0)) / 2
    scale = np.maximum((pixels.max(axis=0) - pixels.min(axis=0)) / 2, 1.0)
    unit = (pixels - origin) / scale
    fits = _candidates(unit, points, path)
    kind = min(fits, key=lambda name: fits[name][0])
    held_out, weights = fits[kind]
    return Geolocation(
        crs=code,
        kind=kind,
        gcps=len(distinct),
        held_out_m=held_out,
        affine_held_out_m=_least_squares(_polynomial(unit, 1), points)[0],
        origin=origin,
        scale=scale,
        nodes=unit if kind == "tps" else np.empty((0, 2)),
        weights=weights,
    )


def _candidates(unit: Array, points: Array, path: Path) -> dict[Kind, tuple[float, Array]]:
    """Leave-one-out error and weights of each model that the points determine."""
    try:
        fits: dict[Kind, tuple[float, Array]] = {"tps": _spline(unit, points)}
        if len(unit) >= LEAST_FOR_CUBIC:
            fits["cubic"] = _least_squares(_polynomial(unit, 3), points)
    except np.linalg.LinAlgError as error:
        raise DataError(
            f"the GCPs of {path} determine no surface ({error}); provide points that are not "
            "collinear"
        ) from error
    return fits


def _in_metres(points: Array, crs: Any, path: Path) -> tuple[str, Array]:
    """A CRS in metres and the points (n, 2) in it."""
    try:
        own = CRS.from_user_input(crs.to_wkt())
        if own.is_projected:
            number = own.to_epsg()
            return (own.to_wkt() if number is None else f"EPSG:{number}"), points
        to_degrees = Transformer.from_crs(own, "EPSG:4326", always_xy=True)
        lon, lat = to_degrees.transform(*points.T)
        code = zone_of(np.asarray(lon), np.asarray(lat))
        metres = Transformer.from_crs("EPSG:4326", code, always_xy=True).transform(lon, lat)
    except ProjError as error:
        raise DataError(f"{path}: the CRS of its GCPs cannot be used ({error})") from error
    projected = np.stack(metres, axis=1)
    if not np.isfinite(projected).all():
        raise DataError(f"{path}: its GCPs are not valid positions on the Earth; correct them")
    return code, projected


def zone_of(lon: Array, lat: Array) -> str:
    """EPSG code of the UTM zone, or polar stereographic grid, at the middle of the points."""
    turns = np.exp(1j * np.radians(lon)).mean()
    middle, height = math.degrees(np.angle(turns)), float(np.mean(lat))
    if abs(height) > _POLAR_DEGREES:
        return "EPSG:5041" if height > 0 else "EPSG:5042"
    zone = int((middle + 180) // 6) % 60 + 1
    return f"EPSG:{(32600 if height >= 0 else 32700) + zone}"


def _polynomial(unit: Array, degree: int) -> Array:
    """Powers (n, terms) of normalised positions up to `degree` in both together."""
    col, row = unit.T
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    return np.stack([col**i * row**j for i, j in powers], axis=1)


def _kernel(unit: Array, nodes: Array) -> Array:
    """r^2 log r (n, m) between positions and nodes: the thin plate of Duchon 1977."""
    squared = ((unit[:, None] - nodes[None]) ** 2).sum(axis=-1)
    return np.asarray(0.5 * squared * np.log(np.maximum(squared, 1e-300)))


def _spline(unit: Array, points: Array) -> tuple[float, Array]:
    """Leave-one-out error and weights of the spline through all points.

    The leave-one-out error of point i is w_i / (A^-1)_ii (Rippa, Advances in Computational
    Mathematics 11, 1999), so that one solution gives all of them.
    """
    count = len(unit)
    tail = _polynomial(unit, 1)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _kernel(unit, unit)
    system[:count, count:], system[count:, :count] = tail, tail.T
    if np.linalg.cond(system) > _SINGULAR:
        raise np.linalg.LinAlgError("they are collinear")
    inverse = np.linalg.inv(system)
    weights = inverse[:, :count] @ points
    missed = weights[:count] / np.diag(inverse)[:count, None]
    return _rms(missed), weights


def _least_squares(design: Array, points: Array) -> tuple[float, Array]:
    """Leave-one-out error (from the leverage of each point) and weights of a polynomial."""
    weights, *_ = np.linalg.lstsq(design, points, rcond=None)
    leverage = np.einsum("ij,ji->i", design, np.linalg.pinv(design))
    missed = (points - design @ weights) / np.maximum(1 - leverage, 1e-9)[:, None]
    return _rms(missed), np.asarray(weights, np.float64)


def _rms(missed: Array) -> float:
    return float(np.sqrt((missed**2).sum(axis=1).mean()))
