"""E3, E5 and E6 on tiles of the procedural archive: each defect against the null of its measure.

Forty scenes of 256 px, two tiles of 128 px of each; the null is the distance between the tiles of
random halves of the scenes, so that no scene is in both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from halves_of_scenes import against_null

from sarhpc.archive.procedural.config import ProceduralConfig
from sarhpc.archive.procedural.simulate import scene_ids, simulate_scene
from sarhpc.measures.defects import (
    block_shuffled,
    blurred,
    dimmed_targets,
    gained,
    gridded,
    respeckled,
    shuffled,
)
from sarhpc.measures.levels import bright_excess_ratio, measure_levels, paired_difference
from sarhpc.measures.spectrum import grid_lines_db, log_spectral_distance, measure_spectrum
from sarhpc.measures.texture import measure_texture, overall, texture_distance

pytestmark = pytest.mark.slow

SCENES, TILE_PX = 40, 128
SCENE_OF = np.repeat(np.arange(SCENES), 2)


@pytest.fixture(scope="module")
def tiles() -> list[np.ndarray]:
    cfg = ProceduralConfig(
        seed=5, scenes=SCENES, scenes_per_line=1, size_px=2 * TILE_PX, optical=False
    )
    scenes = [np.abs(simulate_scene(cfg, name).sar) for name in scene_ids(cfg)]
    corners = ((0, 0), (TILE_PX, TILE_PX))
    return [A[r : r + TILE_PX, c : c + TILE_PX] for A in scenes for r, c in corners]


def features(measure: Callable[[np.ndarray], Any], tiles: list[np.ndarray]) -> np.ndarray:
    return np.array([measure(tile) for tile in tiles])


@pytest.fixture(scope="module")
def sets(tiles: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """The tiles as they are, and with each defect."""
    rng = np.random.default_rng(7)
    return {
        "same": tiles,
        "gain 1 dB": [gained(A, 1) for A in tiles],
        "blur 0.6 px": [blurred(A) for A in tiles],
        "shuffle 8 x 8": [shuffled(A, rng) for A in tiles],
        "blocks shuffled": [block_shuffled(A, rng) for A in tiles],
        "re-speckle": [respeckled(A, rng) for A in tiles],
        "targets -10 dB": [dimmed_targets(A) for A in tiles],
        "grid 0.5 dB": [gridded(A, 0.5) for A in tiles],
    }


def check(
    measured: dict[str, np.ndarray],
    distance: Callable[[Any, Any], float],
    seen: dict[str, float],
) -> None:
    """Defects in `seen` exceed so many times the null's 95 %; the others stay below it."""
    bound, found = against_null(distance, measured["same"], measured, SCENE_OF)
    print(f"null 95 % {bound:.3g};", ", ".join(f"{n}: {r:.2f}" for n, r in found.items()))
    for name, times in seen.items():
        assert found[name] > times, name
    for name in set(found) - set(seen):
        assert found[name] < 1, name


Sets = dict[str, list[np.ndarray]]
SPECKLE_DEFECTS = {
    "blur 0.6 px": 2.0,
    "shuffle 8 x 8": 2.0,
    "blocks shuffled": 2.0,
    "re-speckle": 2.0,
}


def test_texture_sees_blur_shuffle_and_speckle_and_no_gain(sets: Sets) -> None:
    measured = {name: features(measure_texture, of) for name, of in sets.items()}
    check(measured, lambda g, r: overall(texture_distance(g, r)), SPECKLE_DEFECTS)


def test_spectrum_sees_blur_shuffle_and_speckle_and_its_lines_a_grid(sets: Sets) -> None:
    spectra = {name: [measure_spectrum(A) for A in of] for name, of in sets.items()}
    pooled = {name: np.array([s.pooled for s in of]) for name, of in spectra.items()}
    check(pooled, lambda g, r: log_spectral_distance(g.mean(0), r.mean(0)), SPECKLE_DEFECTS)
    lines = {name: np.array([s.lines_db for s in of]) for name, of in spectra.items()}
    read = {name: grid_lines_db(of) for name, of in lines.items()}
    print("lines, dB:", {name: round(db, 2) for name, db in read.items()})
    # Per tile 0.9 dB, 80 tiles: 0.1 dB.
    assert read["same"] == pytest.approx(0, abs=0.2)
    assert read["grid 0.5 dB"] > 0.4
    # Blocks that do not fit together have less power at the lines than around them: no grid.
    assert read["blocks shuffled"] < -1
    check(
        lines,
        lambda g, r: max(0.0, grid_lines_db(g) - grid_lines_db(r)),
        {"grid 0.5 dB": 1.5},
    )


def test_dimmed_targets_are_seen_by_their_bright_excess(sets: Sets) -> None:
    measured = {
        name: features(lambda A: measure_levels(A).bright_excess_db, of)
        for name, of in sets.items()
    }
    check(
        measured,
        lambda g, r: bright_excess_ratio(g.mean(), r.mean()),
        {"targets -10 dB": 1.0},
    )


def test_a_gain_of_0_3_db_is_seen_on_the_same_tiles(tiles: list[np.ndarray]) -> None:
    rng = np.random.default_rng(3)
    real = features(lambda A: measure_levels(A).mean_db, tiles)
    other = [respeckled(A, rng) for A in tiles]
    found = paired_difference(
        features(lambda A: measure_levels(gained(A, 0.3)).mean_db, other), real
    )
    same = paired_difference(features(lambda A: measure_levels(A).mean_db, other), real)
    print(f"0.3 dB: {found}; none: {same}; spread of levels {real.std():.1f} dB")
    assert found.low_db < 0.3 < found.high_db
    assert found.seen
    assert not same.seen
