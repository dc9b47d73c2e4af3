"""Radiometry 2 beside measured images, by the measures of `sarhpc evaluate`; `-s` prints them.

Peers are those of tools/compare_simulator.py: a lawn, a car park, and both in equal parts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import compare_simulator
import numpy as np
import pytest
from compare_simulator import Row, heading, line, measure, measured, peers, spacenet

from sarhpc.archive.procedural.config import SCENE_KINDS, ProceduralConfig
from sarhpc.archive.procedural.simulate import scene_ids, simulate_scene
from sarhpc.measures.look_direction import look_direction

pytestmark = pytest.mark.slow

SCENES, SEED = 8, 1033
"""Eight scenes of each kind, of a seed that no value was chosen by."""

FIGURES: dict[str, Callable[[Row], float]] = {
    "k2": lambda row: row.k2,
    "k3": lambda row: row.k3,
    "P99 - P50": lambda row: row.over_median(99.0),
    "P99.9 - P50": lambda row: row.over_median(99.9),
    "E4 azimuth": lambda row: row.azimuth,
    "E4 range": lambda row: row.range,
}
GOTCHA = {
    "lawn": (1.78, -2.46, 8.9, 11.6, 0.469, 0.435),
    "car park": (3.39, 1.37, 22.3, 29.3, 0.501, 0.511),
    "whole": (2.73, -0.39, 19.1, 27.8, 0.482, 0.498),
}
"""FIGURES of GOTCHA (github.com/dm6718/RITSAR 0e36d2e, AFRL pass 1 HH, back-projected at 0.2 m)
tiled to 0.35 m, as `make simulator-report` prints them."""
BARS = {
    "lawn": (0.15, 0.2, 0.5, 1.0, 0.05, 0.05),
    "car park": (1.0, 0.75, 3.0, 3.0, 0.05, 0.05),
    "whole": (0.45, 0.5, 1.5, 3.0, 0.05, 0.05),
}
"""A town is no car park, and k3 of eight towns scatters by 0.4 over seeds. k2 is too high by 0.2 to
0.3 of the whole and 0.8 of towns on every seed, which its bars admit (docs/simulator.md)."""


@cache
def simulated(radiometry: int) -> dict[str, Row]:
    return {name: measure(images) for name, images in peers(radiometry, SCENES, SEED).items()}


def figures(row: Row) -> dict[str, float]:
    return {name: figure(row) for name, figure in FIGURES.items()}


def show(title: str, rows: dict[str, Row]) -> None:
    print(f"\n{heading()}")
    for name, row in rows.items():
        print(line(f"{title} {name}", row))


@pytest.mark.parametrize("part", list(GOTCHA))
def test_version_2_has_the_statistics_of_gotcha(part: str) -> None:
    show("radiometry 2,", {part: simulated(2)[part]})
    found = figures(simulated(2)[part])
    wide = {
        name: (round(found[name], 3), expected)
        for name, expected, bar in zip(FIGURES, GOTCHA[part], BARS[part], strict=True)
        if abs(found[name] - expected) > bar
    }
    assert not wide


def test_version_1_has_not() -> None:
    found = figures(simulated(1)["whole"])
    assert found["k3"] < GOTCHA["whole"][1] - 2
    assert found["P99.9 - P50"] < GOTCHA["whole"][3] - 3


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_gotcha_has_the_figures_it_is_compared_by(test_data: Path) -> None:
    rows = measured(test_data)
    show("GOTCHA", rows)
    for part, expected in GOTCHA.items():
        found = list(figures(rows[part]).values())
        np.testing.assert_allclose(found, expected, atol=0.06, err_msg=part)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_spacenet_is_reported(test_data: Path) -> None:
    """Nothing was tuned on it: towns decimated to its spacing have its tails within a few dB."""
    real = spacenet(test_data)
    towns = {"towns at 2.45 m": measure(compare_simulator.decimated_towns(2, 2, SEED))}
    show("SpaceNet-6", real)
    show("radiometry 2,", towns)
    [town] = towns.values()
    for channel in ("HH", "VV"):
        assert town.over_median(99.9) == pytest.approx(real[channel].over_median(99.9), abs=4)
        assert town.azimuth == pytest.approx(real[channel].azimuth, abs=0.1)


@pytest.mark.long
def test_scenes_of_version_2_show_their_look_direction() -> None:
    """As version 1 does: 0.95 where something casts a shadow.

    24 flight lines of two scenes, 192 tiles of 256 px, 156 of them not of kind water: three
    standard errors are 0.052. The loss of crowns was chosen on seed 816, not on this one.
    """
    cfg = ProceduralConfig(
        seed=2817, scenes=48, scenes_per_line=2, size_px=512, optical=False, radiometry=2
    )
    made = [simulate_scene(cfg, name) for name in scene_ids(cfg)]
    corners = [(row, col) for row in (0, 256) for col in (0, 256)]
    tiles = [np.abs(s.sar)[r : r + 256, c : c + 256] for s in made for r, c in corners]
    found = look_direction(tiles, [s.flight.line for s in made for _ in corners])
    kinds = np.array([s.flight.kind for s in made for _ in corners])
    print(f"\n{found.verdict}: {found.reason}")
    for kind in SCENE_KINDS:
        print(f"{kind}: {found.correct[kinds == kind].mean():.3f} of {(kinds == kind).sum()}")
    dry = found.correct[kinds != "water"].mean()
    print(f"all but water: {dry:.3f}")
    assert found.verdict == "shown"
    assert dry >= 0.95 - 0.052
