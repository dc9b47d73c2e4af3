"""The gate of single images on procedural tiles of scenes that its limits are not from."""

from __future__ import annotations

import numpy as np
import pytest
from planted_defects import curves, false_rejects, limits_of, recalls
from scipy.stats import betabinom

from sarhpc.archive.procedural.config import ProceduralConfig
from sarhpc.archive.procedural.simulate import scene_ids, simulate_scene
from sarhpc.measures.defects import gridded
from sarhpc.measures.gate_limits import GateLimits, rank
from sarhpc.measures.image_defects import GRID, measure_image

MUST_SEE = (
    "NaN", "black", "constant", "saturated, +20 dB", "blur of 0.6 px", "blur of 1 px",
    "level, -20 dB", "multilook 3 x 3", "white re-speckle", "colour, 0.05",
    "exact copy", "copy, SNR 20 dB",
)  # fmt: skip
RECALL = 0.95


def tiles(seed: int, scenes: int, size_px: int = 128) -> list[np.ndarray]:
    """One tile of each of so many scenes."""
    cfg = ProceduralConfig(
        seed=seed, scenes=scenes, scenes_per_line=1, size_px=size_px, optical=False
    )
    return [np.abs(simulate_scene(cfg, name).sar) for name in scene_ids(cfg)]


def show(found: dict[str, float]) -> None:
    print("\n".join(f"{name}: {recall:.3f}" for name, recall in found.items()), flush=True)


def check(limits: GateLimits, unseen: list[np.ndarray]) -> None:
    """False rejects as the limits say, and every defect of the acceptance found."""
    share = false_rejects(limits, unseen)
    low, high = limits.rate_interval()
    print(f"\n{limits.tiles} tiles, rate {limits.rate:.1%} (90 %: {low:.2%} to {high:.2%}), "
          f"{limits.tests} tests; false rejects {share:.2%} of {len(unseen)}")  # fmt: skip
    print(limits.to_json())
    beyond = limits.tests * (limits.tiles + 1 - rank(limits.tiles, limits.rate, limits.tests))
    # One set of limits in a thousand rejects more.
    most = betabinom(len(unseen), beyond, limits.tiles + 1 - beyond).ppf(0.999)
    assert share * len(unseen) <= most
    found = recalls(limits, unseen)
    show(found)
    for name in MUST_SEE:
        assert found[name] >= RECALL, name


@pytest.mark.slow
def test_planted_defects_of_unseen_scenes_are_quarantined() -> None:
    check(limits_of(tiles(101, 200), 0.05), tiles(202, 50))


@pytest.mark.long
def test_1000_unseen_scenes_at_one_percent_of_false_rejects() -> None:
    limits, unseen = limits_of(tiles(101, 1000), 0.01), tiles(202, 1000)
    check(limits, unseen)
    print("every fourth tile:")
    show(curves(limits, unseen[::4]))


@pytest.mark.long
def test_the_weakest_grid_that_one_image_shows_falls_with_its_size() -> None:
    """The limit of the grid at 1/9 of 1 %, by the normal law of 40 tiles."""
    for size in (64, 128, 256, 512):
        scenes = tiles(303, 40, size)
        plain = np.array([measure_image(A)[GRID] for A in scenes])
        limit = plain.mean() + 3.06 * plain.std()
        found = {
            db: float(np.mean([measure_image(gridded(A, db))[GRID] > limit for A in scenes]))
            for db in (0.5, 1.0, 1.5, 2.0, 3.0)
        }
        print(f"{size} px: spread {plain.std():.2f} dB, limit {limit:.2f} dB, recall {found}")
