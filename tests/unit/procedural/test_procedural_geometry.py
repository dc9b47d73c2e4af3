"""Layover, shadow and energy of simple bodies against plane trigonometry."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sarhpc.archive.procedural.config import FOREST, URBAN, ProceduralConfig
from sarhpc.archive.procedural.imaging.geometry import Facets, View, project, spread, surface_nodes
from sarhpc.archive.procedural.landscape.ground import Ground
from sarhpc.archive.procedural.landscape.terrain import Grid, terrain_height, working_grid

pytestmark = pytest.mark.slow

CFG = ProceduralConfig(size_px=256)


def flat_ground(incidence: float) -> tuple[Ground, View]:
    grid = working_grid(CFG, incidence)
    ground = Ground.bare(grid, np.zeros(grid.shape, dtype=np.float32))
    return ground, View.over(grid, incidence, CFG.altitude_m)


def with_box(ground: Ground, height_m: float) -> tuple[int, int]:
    """A flat-roofed building over 40 columns; returns its first column and the one behind it."""
    first = ground.grid.near + 100
    ground.roof[60:200, first : first + 40] = height_m
    ground.label[60:200, first : first + 40] = URBAN
    return first, first + 40


@pytest.mark.parametrize(("height", "incidence"), [(6.0, 45.0), (12.0, 35.0), (9.0, 55.0)])
def test_shadow_is_h_tan_theta_long(height: float, incidence: float) -> None:
    ground, view = flat_ground(incidence)
    first, behind = with_box(ground, height)
    seen = project(ground, view, np.ones(ground.grid.shape))
    theta = view.incidence(ground.grid)[behind]
    columns = np.flatnonzero(seen.shadow[128, :-1])
    tip = behind + height * math.tan(theta) / CFG.pixel_m
    # The roof is laid over towards the antenna: what it uncovers of its own place is dark too.
    roof_end = max(first, behind - height / math.tan(theta) / CFG.pixel_m)
    assert columns[-1] + 1 == pytest.approx(tip, abs=1.0)
    assert columns[0] == pytest.approx(roof_end, abs=1.0)
    assert columns.size == columns[-1] - columns[0] + 1
    assert not seen.lit[128, behind + 2 : int(tip) - 1].any()
    assert seen.lit[128, int(tip) + 2 :].all()


@pytest.mark.parametrize(("height", "incidence"), [(6.0, 45.0), (12.0, 35.0), (9.0, 55.0)])
def test_layover_is_h_cot_theta_long(height: float, incidence: float) -> None:
    ground, view = flat_ground(incidence)
    first, _ = with_box(ground, height)
    seen = project(ground, view, np.ones(ground.grid.shape))
    theta = view.incidence(ground.grid)[first]
    columns = np.flatnonzero(seen.layover[128])
    assert columns[0] == pytest.approx(first - height / math.tan(theta) / CFG.pixel_m, abs=1.0)
    assert columns[-1] + 1 == pytest.approx(first, abs=1.0)
    assert not seen.layover[20].any()
    assert not seen.shadow[20, :-1].any()


def test_flat_ground_keeps_its_backscatter_and_place() -> None:
    ground, view = flat_ground(45.0)
    sigma0 = np.random.default_rng(0).uniform(0.1, 1.0, ground.grid.shape)
    seen = project(ground, view, sigma0)
    assert seen.power[:, 1:-2] == pytest.approx(sigma0[:, 1:-2], rel=1e-3)
    assert seen.cover[:, 1:-2] == pytest.approx(1.0, abs=1e-6)


def test_terrain_stays_in_its_own_column() -> None:
    grid = working_grid(CFG, 45.0)
    terrain = terrain_height(np.random.default_rng(1), grid, 4.0).astype(np.float64)
    nodes = surface_nodes(grid, View.over(grid, 45.0, CFG.altitude_m), terrain, 0 * terrain)
    assert nodes.column == pytest.approx(
        np.broadcast_to(np.arange(grid.shape[1]), grid.shape), abs=1e-6
    )


@pytest.mark.parametrize("body", ["wood", "ridge"])
def test_relief_moves_power_and_keeps_its_sum(body: str) -> None:
    """A class of constant gamma returns the power of the aperture it fills, whatever its shape."""
    ground, view = flat_ground(45.0)
    ground.label[:] = FOREST
    flat = project(ground, view, np.ones(ground.grid.shape)).power.sum(axis=1)
    columns = np.arange(ground.grid.shape[1]) - ground.grid.near - 128
    shape = np.exp(-((columns / 25.0) ** 2)) if body == "ridge" else np.abs(columns) < 30
    ground.canopy[:] = (14 * shape).astype(np.float32)
    seen = project(ground, view, np.ones(ground.grid.shape))
    assert seen.power.std(axis=1).min() > 0.1
    assert seen.power.sum(axis=1) == pytest.approx(flat, rel=2e-3)


def test_crowns_cast_a_shadow_that_lets_some_of_the_wave_through() -> None:
    ground, view = flat_ground(45.0)
    ground.label[:, 180:210] = FOREST
    ground.canopy[:, 180:210] = 12.0
    wood = project(ground, view, np.ones(ground.grid.shape))
    length = 12.0 / CFG.pixel_m
    assert wood.lit[128, 212 : 212 + int(0.5 * length)].max() == 0
    twilight = wood.lit[128, 212 : 212 + int(length)]
    assert ((twilight > 0) & (twilight < 1)).sum() >= 3


def test_weights_spread_evenly_and_completely() -> None:
    start = np.array([[2.25, 7.5, 9.0, -3.0]])
    stop = np.array([[4.75, 6.0, 9.0, 1.0]])
    weight = np.array([[5.0, 3.0, 2.0, 4.0]])
    (total,) = spread(Facets(start, stop), [weight], 12)
    expected = np.zeros(12)
    expected[2:5] += [1.5, 2.0, 1.5]
    expected[6:8] += [2.0, 1.0]
    expected[9] += 2.0
    expected[0] += 1.0  # three quarters of the last facet lie outside
    assert total[0] == pytest.approx(expected, abs=1e-9)


def test_incidence_grows_with_range_around_its_nominal_value() -> None:
    grid = Grid(256, 0.35, 80, 80)
    theta = np.degrees(View.over(grid, 40.0, 3000.0).incidence(grid))
    middle = (theta[grid.near + 127] + theta[grid.near + 128]) / 2
    assert middle == pytest.approx(40.0, abs=1e-3)
    assert (np.diff(theta) > 0).all()
    assert 0.5 < theta[grid.near + 255] - theta[grid.near] < 1.5
