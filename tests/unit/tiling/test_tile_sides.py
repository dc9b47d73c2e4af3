"""One town seen from the west and from the east: its shadows fall to the same side of the tiles."""

from __future__ import annotations

import numpy as np
import pytest
from array_scenes import ArrayArchive, array_reader, intensity, white_speckle

from sarhpc.archive.procedural.config import URBAN, ProceduralConfig
from sarhpc.archive.procedural.imaging.geometry import View, project
from sarhpc.archive.procedural.landscape.ground import Ground
from sarhpc.archive.procedural.landscape.terrain import working_grid
from sarhpc.shards.images import decode_array
from sarhpc.shards.radiometry import decode_master
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.orientation import inverse, transform
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard

pytestmark = pytest.mark.slow

CFG = ProceduralConfig(size_px=256, looks=1)
INCIDENCE_DEG, HEIGHT_M = 45.0, 9.0
ROOF_PX, SHADOW_PX = 40, 25
"""A roof is 40 columns wide; 9 m cast 25.7 columns of shadow at 45 degrees."""
HOUSES = ((30, 60), (130, 150))
"""First row and column of two roofs in the scene, 60 rows long."""


def seen(from_east: bool) -> np.ndarray:
    """Speckled image (H, W) of the town on the map: columns run east, whoever looks."""
    grid = working_grid(CFG, INCIDENCE_DEG)
    ground = Ground.bare(grid, np.zeros(grid.shape, np.float32))
    for row, col in HOUSES:
        if from_east:  # the sensor's own frame is the map turned by 180 degrees
            row, col = CFG.size_px - row - 60, CFG.size_px - col - ROOF_PX
        place = np.s_[row : row + 60, grid.near + col : grid.near + col + ROOF_PX]
        ground.roof[place], ground.label[place] = HEIGHT_M, URBAN
    view = View.over(grid, INCIDENCE_DEG, CFG.altitude_m)
    power = project(ground, view, np.ones(grid.shape)).power[grid.inside] + 1e-3
    image = white_speckle(power.shape, seed=int(from_east)) * np.sqrt(power)
    return (image[::-1, ::-1] if from_east else image).astype(np.complex64)


def beside(power: np.ndarray, row: float, col: float, side: int) -> float:
    """Mean intensity where a roof around (row, col) casts its shadow, towards one side."""
    middle = round(col + side * (ROOF_PX + SHADOW_PX) / 2)
    rows = slice(round(row) - 20, round(row) + 20)
    return float(power[rows, middle - 8 : middle + 8].mean())


@pytest.mark.parametrize("from_east", [False, True])
def test_shadow_lies_on_the_far_side_of_the_tile_from_either_look_side(from_east: bool) -> None:
    stored = seen(from_east)
    direction = "-col" if from_east else "+col"
    reader = array_reader(stored, 0.35, range_direction=direction, incidence_deg=INCIDENCE_DEG)
    archive = ArrayArchive({"town": lambda: reader})
    cfg = TileConfig(tile_px=256, max_saturated=1.0, split=SplitConfig(fractions=[1.0, 0.0, 0.0]))
    [inputs] = plan_scenes(archive.search(), cfg, opener=archive.open).shards
    [sample] = tile_shard(0, inputs, archive, cfg, opener=archive.open).samples
    codes = decode_array(sample.members["sar16.npy"])
    tile = decode_master(codes, sample.meta["master_scale"]) ** 2
    for row, col in HOUSES:
        on_map = np.array([col + ROOF_PX / 2, row + 30.0])
        east = 1 if not from_east else -1
        stored_power = intensity(stored)
        assert beside(stored_power, on_map[1], on_map[0], east) < 0.2, "as it was flown"
        assert beside(stored_power, on_map[1], on_map[0], -east) > 0.5
        at = transform(inverse(sample.meta["affine"]), transform(reader.header.affine, on_map))
        assert beside(tile, at[1], at[0], +1) < 0.2, "the far side, in every tile"
        assert beside(tile, at[1], at[0], -1) > 0.5
