"""Composition of the ground of a scene: terrain, land cover, buildings, trees, reflectors."""

from __future__ import annotations

import math

import numpy as np

from hpc.errors import ConfigError
from sarhpc.archive.procedural.backscatter import table, trihedral_rcs
from sarhpc.archive.procedural.config import (
    FOREST,
    LABELS,
    ROAD,
    SCENE_KINDS,
    URBAN,
    WATER,
    ProceduralConfig,
)
from sarhpc.archive.procedural.landscape.ground import Ground, Points
from sarhpc.archive.procedural.landscape.landcover import (
    COMPOSITIONS,
    Composition,
    Mask,
    blobs,
    draw_course,
    fill_lake,
    flow_river,
    lay_parcels,
    pave,
    threshold_mask,
)
from sarhpc.archive.procedural.landscape.terrain import AZIMUTH_MARGIN, Grid, terrain_height
from sarhpc.archive.procedural.landscape.town import build_farms, build_town
from sarhpc.archive.procedural.landscape.vegetation import grow_trees, scatter_trees
from sarhpc.imaging.streams import stream

TRIHEDRAL_SIDE_M = 0.5


def compose_ground(cfg: ProceduralConfig, ground_id: str, kind: str, grid: Grid) -> Ground:
    """The ground `ground_id` of a scene of `kind` on the working grid.

    Raises:
        ConfigError: `flat_class` is not a land-cover class.
    """
    if cfg.flat_class is not None:
        return flat_ground(cfg, ground_id, grid)
    if kind not in SCENE_KINDS:
        raise ConfigError(f"scene kind {kind!r}: must be one of {', '.join(SCENE_KINDS)}")
    composition = COMPOSITIONS[kind]
    terrain = terrain_height(stream(cfg.seed, ground_id, "terrain"), grid, cfg.relief_m)
    ground = Ground.bare(grid, terrain)
    shares = stream(cfg.seed, ground_id, "shares")
    share = {name: float(shares.uniform(*getattr(composition, name))) for name in _SHARES}
    hedges = lay_parcels(stream(cfg.seed, ground_id, "parcels"), ground, share["hedge"])
    _vary_levels(cfg, ground_id, ground)
    lake, banks = _water(cfg, ground_id, ground, composition, share["lake"])
    town = _town(cfg, ground_id, ground, share["town"])
    _ways(cfg, ground_id, ground, composition, lake, bool(town.any()))
    _farms(cfg, ground_id, ground, share["farms"], town)
    _trees(cfg, ground_id, ground, share, (hedges & ~town) | banks, town)
    _reflectors(cfg, ground_id, ground)
    return ground


_SHARES = ("forest", "lake", "town", "farms", "trees_ha", "hedge")


def flat_ground(cfg: ProceduralConfig, ground_id: str, grid: Grid) -> Ground:
    """Flat, homogeneous ground of `cfg.flat_class`, with reflectors if requested."""
    if cfg.flat_class not in LABELS[1:]:
        raise ConfigError(f"flat_class {cfg.flat_class!r}: must be one of {', '.join(LABELS[1:])}")
    ground = Ground.bare(grid, np.zeros(grid.shape, dtype=np.float32))
    ground.label[:] = LABELS.index(cfg.flat_class)
    _reflectors(cfg, ground_id, ground)
    return ground


def _vary_levels(cfg: ProceduralConfig, ground_id: str, ground: Ground) -> None:
    """Vary the backscatter of parcels around their class mean, with their tone (wet is dark)."""
    spread = table("spread_db")[ground.label]
    # A uniform tone of -1..1 has a standard deviation of 1/sqrt(3).
    ground.level_db += ground.tone * spread * np.float32(math.sqrt(3))


def _water(
    cfg: ProceduralConfig, ground_id: str, ground: Ground, composition: Composition, share: float
) -> tuple[Mask, Mask]:
    """Lake and river; returns the lake and where trees grow on the river's banks."""
    rng = stream(cfg.seed, ground_id, "water")
    lake, banks = (np.zeros(ground.grid.shape, dtype=bool) for _ in range(2))
    if share > 0.005:
        lake = fill_lake(rng, ground, share)
    if rng.random() < composition.river:
        banks |= flow_river(rng, ground, composition.river_m)
    return lake, banks


def _town(cfg: ProceduralConfig, ground_id: str, ground: Ground, share: float) -> Mask:
    rng = stream(cfg.seed, ground_id, "town")
    noise = blobs(rng, ground, 70.0)
    area = threshold_mask(noise, share if share > 0.06 else 0.0, ground.grid.inside)
    area &= ground.label != WATER
    if area.any():
        build_town(rng, ground, area)
    return area


def _ways(
    cfg: ProceduralConfig,
    ground_id: str,
    ground: Ground,
    composition: Composition,
    lake: Mask,
    built: bool,
) -> None:
    rng = stream(cfg.seed, ground_id, "ways")
    if rng.random() < composition.road and not (built and composition.town[0] > 0.5):
        pave(ground, draw_course(rng, ground, "road", float(rng.uniform(5, 8)), 7.0, 220.0), lake)
    if rng.random() < composition.path:
        pave(
            ground, draw_course(rng, ground, "path", float(rng.uniform(2.6, 3.8)), 6.0, 110.0), lake
        )


def _farms(cfg: ProceduralConfig, ground_id: str, ground: Ground, count: float, town: Mask) -> None:
    rng = stream(cfg.seed, ground_id, "farms")
    hectares = (ground.grid.size * ground.grid.pixel_m) ** 2 / 1e4
    number = int(rng.poisson(count * hectares / 3.2))
    if not town.any():
        build_farms(rng, ground, number)


def _trees(
    cfg: ProceduralConfig,
    ground_id: str,
    ground: Ground,
    share: dict[str, float],
    rows: Mask,
    town: Mask,
) -> None:
    rng = stream(cfg.seed, ground_id, "trees")
    wood = threshold_mask(blobs(rng, ground, 38.0), share["forest"], ground.grid.inside)
    wood &= ~town | (ground.roof == 0)
    way = _near_way(ground)
    grow_trees(rng, ground, wood & ~way, float(rng.uniform(4.5, 7.5)), float(rng.uniform(8, 15)))
    grow_trees(rng, ground, rows & ~way, 3.2, float(rng.uniform(4, 7)))
    scatter_trees(rng, ground, share["trees_ha"])


def _near_way(ground: Ground) -> Mask:
    """Roads, paths, buildings and water, where no tree grows."""
    return np.isin(ground.label, (ROAD, URBAN, WATER)) | ground.way


def _reflectors(cfg: ProceduralConfig, ground_id: str, ground: Ground) -> None:
    """Set trihedral reflectors on open ground, apart from each other."""
    if cfg.trihedrals <= 0:
        return
    rng = stream(cfg.seed, ground_id, "reflectors")
    side = math.ceil(math.sqrt(cfg.trihedrals))
    step = cfg.size_px / side
    places = []
    for index in rng.permutation(side * side)[: cfg.trihedrals].tolist():
        middle = np.array((index // side + 0.5, index % side + 0.5)) * step
        row, col = (middle + rng.uniform(-0.2, 0.2, 2) * step).astype(int)
        cell = (row + AZIMUTH_MARGIN, col + ground.grid.near)
        if ground.label[cell] in (WATER, FOREST, URBAN) and cfg.flat_class is None:
            continue
        places.append(cell)
        ground.objects.append(
            {
                "kind": "trihedral",
                "row": int(row),
                "col": int(col),
                "side_m": TRIHEDRAL_SIDE_M,
                "rcs_m2": round(trihedral_rcs(TRIHEDRAL_SIDE_M), 2),
            }
        )
    cells = np.array(places, dtype=np.float64).reshape(-1, 2)
    rcs = np.full(len(cells), trihedral_rcs(TRIHEDRAL_SIDE_M))
    ground.points.append(Points(cells[:, 0], cells[:, 1], np.zeros(len(cells)), rcs))
