"""E3, E5 and E6 on tiles of the procedural archive: each defect against the null of its measure.

Forty scenes of 256 px, two tiles of 128 px of each; the null is the distance between the tiles of
random halves of the scenes, so that no scene is in both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from defects import (
    against_null,
    blurred,
    dimmed_targets,
    gained,
    gridded,
    respeckled,
    shuffled,
)

from sarhpc.archive.procedural.config import ProceduralConfig
from sarhpc.archive.procedural.simulate import scene_ids, simulate_scene
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


def spoiled(tiles: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(7)
    return {
        "same": tiles,
        "gain 1 dB": [gained(A, 1) for A in tiles],
        "blur 0.6 px": [blurred(A) for A in tiles],
        "shuffle 8 x 8": [shuffled(A, rng) for A in tiles],
        "re-speckle": [respeckled(A, rng) for A in tiles],
        "targets -10 dB": [dimmed_targets(A) for A in tiles],
        "grid 0.5 dB": [gridded(A, 0.5) for A in tiles],
    }


def ratios(
    measure: Callable[[np.ndarray], Any],
    distance: Callable[[Any, Any], float],
    tiles: list[np.ndarray],
) -> tuple[float, dict[str, float]]:
    sets = {name: features(measure, of) for name, of in spoiled(tiles).items()}
    bound, found = against_null(distance, sets["same"], sets, SCENE_OF)
    print(f"null 95 % {bound:.3g};", ", ".join(f"{n}: {r:.2f}" for n, r in found.items()))
    return bound, found


def test_texture_sees_blur_shuffle_and_speckle_and_no_gain(tiles: list[np.ndarray]) -> None:
    _, found = ratios(measure_texture, lambda g, r: overall(texture_distance(g, r)), tiles)
    for defect in ("blur 0.6 px", "shuffle 8 x 8", "re-speckle"):
        assert found[defect] > 2, defect
    for other in ("same", "gain 1 dB", "grid 0.5 dB", "targets -10 dB"):
        assert found[other] < 1, other


def test_grid_lines_are_seen_and_tiles_without_read_0_db(tiles: list[np.ndarray]) -> None:
    levels = {
        name: features(lambda A: measure_spectrum(A).lines_db, of)
        for name, of in spoiled(tiles).items()
    }
    read = {name: grid_lines_db(of) for name, of in levels.items()}
    print("lines, dB:", {name: round(db, 2) for name, db in read.items()})
    # Per tile 0.9 dB, 80 tiles: 0.1 dB.
    assert read["same"] == pytest.approx(0, abs=0.2)
    assert read["grid 0.5 dB"] > 0.4
    _, found = ratios(
        lambda A: measure_spectrum(A).lines_db,
        # Less power at the lines than around them is no grid.
        lambda g, r: max(0.0, grid_lines_db(g) - grid_lines_db(r)),
        tiles,
    )
    assert found["grid 0.5 dB"] > 1.5
    assert max(ratio for name, ratio in found.items() if name != "grid 0.5 dB") < 1


def test_the_spectrum_sees_blur_shuffle_and_speckle(tiles: list[np.ndarray]) -> None:
    _, found = ratios(
        lambda A: measure_spectrum(A).pooled,
        lambda g, r: log_spectral_distance(g.mean(0), r.mean(0)),
        tiles,
    )
    for defect in ("blur 0.6 px", "shuffle 8 x 8", "re-speckle"):
        assert found[defect] > 2, defect
    assert max(found["same"], found["gain 1 dB"], found["targets -10 dB"]) < 1


def test_dimmed_targets_are_seen_by_their_bright_excess(tiles: list[np.ndarray]) -> None:
    _, found = ratios(
        lambda A: measure_levels(A).bright_excess_db,
        lambda g, r: bright_excess_ratio(g.mean(), r.mean()),
        tiles,
    )
    assert found["targets -10 dB"] > 1
    for other in ("same", "gain 1 dB", "shuffle 8 x 8", "grid 0.5 dB", "blur 0.6 px"):
        assert found[other] < 1, other


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
