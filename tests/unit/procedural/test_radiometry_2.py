"""Radiometry 2: same ground and truth as version 1, and what it adds, term by term."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hpc.documents import read_json
from hpc.errors import ConfigError
from sarhpc.archive.procedural.backscatter import SCATTERING
from sarhpc.archive.procedural.config import (
    FOREST,
    LABELS,
    SCENE_KINDS,
    URBAN,
    KindWeights,
    ProceduralConfig,
)
from sarhpc.archive.procedural.imaging import radiometry
from sarhpc.archive.procedural.imaging.discretes import DiscreteLayers, discrete_layers
from sarhpc.archive.procedural.imaging.geometry import View
from sarhpc.archive.procedural.imaging.radiometry import (
    CROWN_LOSS_DB,
    MULTIPLICATIVE_NOISE_DB,
    through_crowns,
)
from sarhpc.archive.procedural.imaging.texture import inverse_gamma_of_normal
from sarhpc.archive.procedural.landscape.ground import Ground
from sarhpc.archive.procedural.landscape.terrain import Grid, working_grid
from sarhpc.archive.procedural.noise import smooth_noise
from sarhpc.archive.procedural.simulate import ProceduralScene, scene_ids, simulate_scene
from sarhpc.archive.procedural.write import write_scene
from sarhpc.imaging.streams import stream

pytestmark = pytest.mark.slow

SMALL = ProceduralConfig(seed=4, scenes=5, size_px=160, scenes_per_line=1, radiometry=2)
LAYERS = ("optical", "label", "height", "terrain", "shadow", "layover", "incidence")


@cache
def scenes(radiometry: int) -> tuple[ProceduralScene, ...]:
    cfg = replace(SMALL, radiometry=radiometry)
    return tuple(simulate_scene(cfg, name) for name in scene_ids(cfg))


@cache
def towns() -> tuple[ProceduralScene, ...]:
    kinds = KindWeights(**{name: float(name == "town") for name in SCENE_KINDS})
    cfg = replace(SMALL, size_px=352, scenes=3, optical=False, scene_kinds=kinds)
    return tuple(simulate_scene(cfg, name) for name in scene_ids(cfg))


def power(scene: ProceduralScene) -> np.ndarray:
    return np.abs(scene.sar).astype(np.float64) ** 2


def test_version_1_is_the_default() -> None:
    assert ProceduralConfig().radiometry == 1


def test_ground_truth_and_all_other_layers_are_those_of_version_1() -> None:
    for old, new in zip(scenes(1), scenes(2), strict=True):
        for name in LAYERS:
            np.testing.assert_array_equal(getattr(old, name), getattr(new, name), err_msg=name)
        assert old.objects == new.objects
        assert old.flight == new.flight
        assert not np.array_equal(old.sar, new.sar)


def test_a_scene_depends_on_its_id_alone_and_is_finite() -> None:
    names = scene_ids(SMALL)
    for name, scene in reversed(list(zip(names, scenes(2), strict=True))):
        assert np.isfinite(scene.sar).all()
        assert (np.abs(scene.sar) > 0).all()
        again = simulate_scene(replace(SMALL, scenes=1000, optical=False), name)
        np.testing.assert_array_equal(again.sar, scene.sar)


def test_a_repeated_line_finds_the_same_scatterers() -> None:
    cfg = replace(SMALL, reflown_fraction=1.0, optical=False)
    first, again = (simulate_scene(cfg, f"proc4-l{line:04d}-s000") for line in (0, 1))
    np.testing.assert_array_equal(first.sigma0, again.sigma0)
    assert not np.array_equal(first.sar, again.sar)


def test_the_item_of_a_scene_says_its_version_unless_it_is_1(tmp_path: Path) -> None:
    said = []
    for version in (1, 2):
        cfg = replace(SMALL, radiometry=version, size_px=64, optical=False)
        item = write_scene(cfg, scene_ids(cfg)[0], tmp_path / str(version))
        said.append(read_json(item)["properties"].get("sarhpc:radiometry"))
    assert said == [None, 2]


def test_a_version_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"radiometry=3 .* between 1 and 2"):
        simulate_scene(replace(SMALL, radiometry=3), scene_ids(SMALL)[0])


@pytest.mark.parametrize("name", LABELS[1:])
def test_flat_scene_has_the_backscatter_of_its_class_and_multiplicative_noise(name: str) -> None:
    """0.3 dB: G0 of M = 2 has an infinite variance of power, and scatters most."""
    cfg = ProceduralConfig(
        seed=2, size_px=512, optical=False, nesz_db=-70.0, flat_class=name, radiometry=2
    )
    mean_db = 10 * np.log10(power(simulate_scene(cfg, scene_ids(cfg)[0])).mean())
    noise_db = 10 * np.log10(1 + 10 ** (MULTIPLICATIVE_NOISE_DB / 10))
    assert mean_db - noise_db == pytest.approx(SCATTERING[name].sigma0_db, abs=0.3)


def test_multiplicative_noise_fills_dark_ground_beside_a_reflector_and_not_far_from_it() -> None:
    cfg = ProceduralConfig(
        seed=1, size_px=512, flat_class="water", trihedrals=1, texture=False, optical=False,
        nesz_db=-60.0, radiometry=2,
    )  # fmt: skip
    scene = simulate_scene(cfg, scene_ids(cfg)[0])
    row, col = int(scene.objects[0]["row"]), int(scene.objects[0]["col"])
    rows, cols = np.indices(scene.sar.shape)
    distance = np.hypot(rows - row, cols - col) * cfg.pixel_m
    # Clear of the sidelobes of the reflector itself, which lie along its row and column.
    aside = (np.abs(rows - row) > 8) & (np.abs(cols - col) > 8)
    near, far = (power(scene)[aside & m].mean() for m in (distance < 12, distance > 60))
    water = 10**-2.6
    share = 10 ** (MULTIPLICATIVE_NOISE_DB / 10)
    assert far == pytest.approx(water * (1 + share), rel=0.05)
    # The density of a triangle of 50 m by 50 m at 8 m from its middle, on average 0.6 of its peak.
    peak = share * scene.objects[0]["rcs_m2"] / 25.0**2
    assert 0.4 * peak < near - far < 0.9 * peak


def test_inverse_gamma_texture_has_its_law() -> None:
    normal = smooth_noise(stream(3, "test", "texture"), (1024, 1024), 2.0)
    texture = inverse_gamma_of_normal(normal, 4.0)
    assert texture.mean() == pytest.approx(1.0, abs=0.02)
    thin = texture[::12, ::12].ravel()
    assert stats.kstest(thin, stats.invgamma(4.0, scale=3.0).cdf).pvalue > 0.01


def tree_and_house() -> tuple[Ground, Grid, View]:
    grid = working_grid(ProceduralConfig(size_px=128), 45.0)
    ground = Ground.bare(grid, np.zeros(grid.shape, dtype=np.float32))
    view = View.over(grid, 45.0, 4500.0)
    tree, house = (slice(40, 60), slice(100, 112)), (slice(100, 120), slice(100, 112))
    ground.canopy[tree], ground.label[tree] = 10.0, FOREST
    ground.roof[house], ground.label[house] = 10.0, URBAN
    return ground, grid, view


def test_behind_and_beneath_crowns_the_wave_returns_and_behind_houses_it_does_not() -> None:
    ground, grid, view = tree_and_house()
    sigma0 = np.full(grid.shape, 0.05)
    lit = np.ones(grid.shape)
    lit[:, 112:130] = 0.0
    through = through_crowns(ground, view, sigma0, lit)
    returned = 0.05 * 10 ** (CROWN_LOSS_DB / 10)
    np.testing.assert_allclose(through[45:55, 101:129], returned)
    np.testing.assert_array_equal(through[105:115, 114:128], 0.0)
    np.testing.assert_array_equal(through[:, :99], 0.0)


def test_vehicles_return_from_the_side_that_faces_the_antenna_and_shadow_the_other() -> None:
    grid = working_grid(ProceduralConfig(size_px=512), 45.0)
    ground = Ground.bare(grid, np.zeros(grid.shape, dtype=np.float32))
    # Houses everywhere, so that vehicles stand on all the grass between them.
    house = (np.arange(grid.shape[0]) % 40 < 10)[:, None] & (np.arange(grid.shape[1]) % 40 < 10)
    ground.label[house], ground.roof[house] = URBAN, 5.0
    layers = discrete_layers(stream(1, "test", "cars"), ground, np.ones(grid.shape), np.pi / 4)
    assert 0.01 < layers.hidden.mean() < 0.15
    bright = layers.power > np.quantile(layers.power, 0.998)
    before, behind = (np.roll(layers.hidden, shift, axis=1)[bright].mean() for shift in (4, -4))
    assert behind > 1.3 * before


@pytest.mark.parametrize("changes", [{"texture": False}, {"flat_class": "road"}])
def test_ground_without_texture_has_no_discrete_scatterers(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    asked = []

    def noted(*given: Any) -> DiscreteLayers:
        asked.append(given)
        return discrete_layers(*given)

    monkeypatch.setattr(radiometry, "discrete_layers", noted)
    cfg = replace(SMALL, size_px=64, optical=False)
    simulate_scene(cfg, scene_ids(cfg)[0])
    assert len(asked) == 1
    simulate_scene(replace(cfg, **changes), scene_ids(cfg)[0])
    assert len(asked) == 1


def levels(radiometry: int) -> dict[str, float]:
    """Median level of each class, out of shadow and layover, dB."""
    found = {}
    for code, name in enumerate(LABELS):
        clear = [(s.label == code) & ~s.shadow & ~s.layover for s in scenes(radiometry)]
        here = [power(s)[m] for s, m in zip(scenes(radiometry), clear, strict=True)]
        values = np.concatenate(here)
        if values.size > 2000:
            found[name] = 10 * np.log10(np.median(values))
    return found


def test_classes_keep_their_contrast() -> None:
    old, new = levels(1), levels(2)
    assert len(new) >= 6
    # Vehicles and noise of the bright surroundings raise streets by most.
    for name, level in new.items():
        assert level == pytest.approx(old[name], abs=2.0), name
    assert new["road"] < new["grass"] - 2


def test_shadows_of_houses_stay_dark() -> None:
    for scene in towns():
        dark, rest = (np.median(power(scene)[m]) for m in (scene.shadow, ~scene.shadow))
        assert 10 * np.log10(rest / dark) > 6
