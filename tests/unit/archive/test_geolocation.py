"""Scenes with control points and no affine: real Sentinel-1, and points made by a known law."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from archive_files import scene_of
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from scipy.interpolate import RBFInterpolator

from hpc.errors import DataError
from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.geolocation import central_spacing, fit_affine, fit_gcps, lattice, zone_of

GRD = "sentinel1/cog_gcps.tif"
BURSTS = "sentinel1/s1a-iw1-slc-vv-20220104t170558-20220104t170623-041314-04e951-004.tiff"
UTM = CRS.from_epsg(32631)


def real(path: Path):
    with rasterio.open(path) as dataset:
        return dataset.gcps


def metres(gcps, crs: str) -> np.ndarray:
    """Map positions (n, 2) of geographic points."""
    to_map = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    return np.stack(to_map.transform([g.x for g in gcps], [g.y for g in gcps]), axis=1)


def pixels(gcps) -> np.ndarray:
    return np.array([(g.col, g.row) for g in gcps])


def rms(missed: np.ndarray) -> float:
    return float(np.sqrt((missed**2).sum(axis=1).mean()))


def points(law, side: int = 5, step: float = 100.0) -> list[GroundControlPoint]:
    """A grid of control points placed by `law(col, row)`."""
    return [
        GroundControlPoint(row=i * step, col=j * step, x=x, y=y)
        for i in range(side)
        for j in range(side)
        for x, y in [law(j * step, i * step)]
    ]


def test_the_real_points_are_met_and_a_single_affine_misses_by_hundreds_of_metres(
    test_data: Path,
) -> None:
    gcps, crs = real(test_data / GRD)
    placed = fit_gcps(gcps, crs, test_data / GRD)
    truth = metres(gcps, placed.crs)
    assert placed.crs == "EPSG:32643"
    assert rms(placed.to_map(pixels(gcps)) - truth) < 1e-3
    assert placed.gcps == 210
    assert placed.held_out_m < 8 < 200 < placed.affine_held_out_m < 300


def test_points_held_out_by_hand_are_met_to_a_fraction_of_a_pixel(test_data: Path) -> None:
    """Every second real point is fitted, the others between them are measured (pixels of 200 m)."""
    gcps, crs = real(test_data / GRD)
    placed = fit_gcps(gcps[::2], crs, test_data / GRD)
    columns, rows = (sorted(set(axis)) for axis in pixels(gcps).T)
    between = [
        g for g in gcps[1::2] if columns[0] < g.col < columns[-1] and rows[0] < g.row < rows[-1]
    ]
    truth = metres(between, placed.crs)
    single = fit_affine(pixels(gcps[::2]), metres(gcps[::2], placed.crs))
    by_affine = np.stack([pixels(between) @ single[:2], pixels(between) @ single[3:5]], axis=1)
    by_affine += single[2], single[5]
    assert rms(placed.to_map(pixels(between)) - truth) < 5
    assert rms(by_affine - truth) > 200


def test_the_held_out_error_is_that_of_leaving_points_out_one_by_one(test_data: Path) -> None:
    gcps, crs = real(test_data / GRD)
    few = gcps[::9]
    placed = fit_gcps(few, crs, test_data / GRD)
    truth = metres(few, placed.crs)
    unit = (pixels(few) - placed.origin) / placed.scale
    missed = []
    for index in range(len(few)):
        rest = np.delete(np.arange(len(few)), index)
        spline = RBFInterpolator(unit[rest], truth[rest], kernel="thin_plate_spline")
        missed.append(spline(unit[[index]])[0] - truth[index])
    assert placed.kind == "tps"
    assert placed.held_out_m == pytest.approx(rms(np.array(missed)), rel=1e-5)


def test_a_cubic_is_taken_where_it_is_the_law() -> None:
    def law(col, row):
        return 5e5 + 10 * col + 1e-7 * col**3, 6e6 - 10 * row + 2e-7 * col * row**2

    placed = fit_gcps(points(law), UTM, Path("x.tif"))
    between = np.array([(130.0, 250.0), (333.0, 71.0)])
    assert placed.kind == "cubic"
    assert placed.held_out_m < 1e-6
    assert placed.to_map(between) == pytest.approx(np.array([law(*p) for p in between]), abs=1e-6)


def test_noise_of_single_points_is_not_followed_by_a_spline() -> None:
    noise = iter(np.random.default_rng(0).normal(0, 5, 1000))

    def law(col, row):
        return 5e5 + 10 * col + next(noise), 6e6 - 10 * row + next(noise)

    placed = fit_gcps(points(law, 10), UTM, Path("x.tif"))
    assert placed.kind == "cubic"


def test_a_local_affine_is_the_best_over_its_window() -> None:
    def law(col, row):
        return 5e5 + 10 * col + 1e-3 * col**2, 6e6 - 12 * row

    placed = fit_gcps(points(law), UTM, Path("x.tif"))
    a, b, c, _, e, _ = placed.affine_over((100, 200), (50, 50))
    inside = lattice((100, 200), (50, 50))
    miss = np.abs(a * inside[:, 0] + b * inside[:, 1] + c - placed.to_map(inside)[:, 0])
    assert a == pytest.approx(10 + 2e-3 * 125)
    assert e == pytest.approx(-12)
    # Of a parabola over a window w the least squared line misses by k w^2 / 8 at most twice over.
    assert miss.max() < 1e-3 * 50**2 / 4
    row_m, col_m = central_spacing(placed, (400, 400))
    assert (row_m, col_m) == pytest.approx((12, 10.4), rel=1e-3)


def test_the_zone_is_that_of_the_middle() -> None:
    def zone(lon, lat):
        return zone_of(np.array(lon, float), np.array(lat, float))

    assert zone([2, 4], [48, 49]) == "EPSG:32631"
    assert zone([179.5, -179.9], [-17, -18]) == "EPSG:32760"
    assert zone([10, 20], [85, 88]) == "EPSG:5041"


def test_points_that_place_nothing_are_refused_with_what_to_do(test_data: Path) -> None:
    line = [GroundControlPoint(row=i, col=i, x=5e5 + i, y=6e6 - i) for i in range(20)]
    with pytest.raises(DataError, match="not collinear"):
        fit_gcps(line, UTM, Path("x.tif"))
    with pytest.raises(DataError, match="3 distinct GCPs"):
        fit_gcps([*line[:3], line[0]], UTM, Path("x.tif"))
    with pytest.raises(DataError, match="without a CRS"):
        fit_gcps(line, None, Path("x.tif"))
    nowhere = [GroundControlPoint(row=i, col=i**2, x=400 + i, y=95) for i in range(9)]
    with pytest.raises(DataError, match=r"not valid positions"):
        fit_gcps(nowhere, CRS.from_epsg(4326), Path("x.tif"))


def test_a_scene_with_points_opens_with_their_ground_spacing(test_data: Path) -> None:
    header = open_sar(scene_of(test_data / GRD)).header
    assert header.crs == "EPSG:32643"
    assert header.spacing_m == pytest.approx((203.6, 200.1), abs=0.3)
    assert header.placement is not None
    bursts = open_sar(scene_of(test_data / BURSTS)).header
    # Slant range of 2.3 m at about 34 degrees of incidence lies 4.2 m apart on the ground.
    assert bursts.spacing_m == pytest.approx((12.5, 4.18), abs=0.1)
    assert bursts.is_complex


def test_repeated_points_of_a_file_count_once() -> None:
    grid = points(lambda col, row: (5e5 + col, 6e6 - row), 3, 4.0)
    placed = fit_gcps([*grid, *grid], UTM, Path("x.tif"))
    assert placed.gcps == 9
    assert central_spacing(placed, (8, 8)) == pytest.approx((1, 1))
