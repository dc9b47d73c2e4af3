"""Whole scenes: determinism, independence, land-cover balance and look direction."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import uniform_filter
from scipy.stats import skew

from hpc.errors import ConfigError
from sarhpc.archive.procedural.config import LABELS, SCENE_KINDS, KindWeights, ProceduralConfig
from sarhpc.archive.procedural.flight import acquisition
from sarhpc.archive.procedural.simulate import ProceduralScene, scene_ids, simulate_scene
from sarhpc.archive.procedural.truth.composition import dominant_class
from sarhpc.imaging.streams import stream

pytestmark = pytest.mark.slow

SMALL = ProceduralConfig(seed=4, scenes=10, size_px=128)


def only(kind: str) -> KindWeights:
    return KindWeights(**{name: float(name == kind) for name in SCENE_KINDS})


@cache
def scenes_of(kind: str) -> tuple[ProceduralScene, ...]:
    cfg = ProceduralConfig(seed=5, scenes=6, size_px=352, optical=False, scene_kinds=only(kind))
    return tuple(simulate_scene(cfg, name) for name in scene_ids(cfg))


def same(one: ProceduralScene, other: ProceduralScene, names: tuple[str, ...]) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


LAYERS = ("sar", "optical", "label", "height", "terrain", "shadow", "layover", "sigma0")


def test_a_scene_depends_on_its_id_alone() -> None:
    names = scene_ids(SMALL)
    in_order = {name: simulate_scene(SMALL, name) for name in names[:4]}
    more = replace(SMALL, scenes=1000)
    for name in reversed(names[:4]):
        assert same(simulate_scene(more, name), in_order[name], LAYERS)


def test_scenes_differ() -> None:
    one, other = (simulate_scene(SMALL, name) for name in scene_ids(SMALL)[:2])
    assert not np.array_equal(one.sar, other.sar)
    assert not np.array_equal(one.label, other.label)


def test_one_step_does_not_move_the_random_numbers_of_another() -> None:
    name = scene_ids(SMALL)[3]
    plain = simulate_scene(SMALL, name)
    quiet = simulate_scene(replace(SMALL, nesz_db=-40.0), name)
    blind = simulate_scene(replace(SMALL, optical=False), name)
    assert same(plain, quiet, ("optical", "label", "height", "shadow", "sigma0"))
    assert same(plain, blind, ("sar", "label", "height", "sigma0"))
    assert blind.optical is None
    speckle = [
        (s.sar / np.sqrt(s.sigma0 + 10 ** (n / 10))) for s, n in ((plain, -28), (quiet, -40))
    ]
    bright = plain.sigma0 > 0.03
    assert np.corrcoef(np.abs(speckle[0][bright]), np.abs(speckle[1][bright]))[0, 1] > 0.95


def test_streams_of_one_purpose_repeat_and_of_others_differ() -> None:
    draws = [stream(1, "scene", purpose).random(4) for purpose in ("a", "a", "b")]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_a_repeated_line_sees_the_same_ground_with_other_speckle() -> None:
    cfg = replace(SMALL, reflown_fraction=1.0, scenes_per_line=2)
    first, again = (simulate_scene(cfg, f"proc4-l{line:04d}-s001") for line in (0, 1))
    assert same(first, again, ("label", "height", "terrain"))
    assert first.flight.ground_id == again.flight.ground_id
    assert first.flight.line != again.flight.line
    assert first.flight.affine == again.flight.affine
    assert not np.array_equal(first.sar, again.sar)
    assert first.flight.acquired != again.flight.acquired


@pytest.mark.parametrize("size", [128, 300])
@pytest.mark.parametrize("pixel", [0.25, 0.35])
def test_any_size_and_spacing_has_layers_of_that_size(size: int, pixel: float) -> None:
    cfg = replace(SMALL, size_px=size, pixel_m=pixel)
    scene = simulate_scene(cfg, scene_ids(cfg)[1])
    assert scene.sar.dtype == np.complex64
    assert scene.optical is not None
    assert scene.optical.shape == (size, size, 3)
    for name in ("sar", "label", "height", "terrain", "shadow", "layover", "incidence", "sigma0"):
        assert getattr(scene, name).shape == (size, size)
    assert np.isfinite(scene.sar).all()
    assert set(np.unique(scene.label)) <= set(range(1, len(LABELS)))


def test_layers_agree_with_each_other() -> None:
    for scene in scenes_of("mixed"):
        tall = scene.height > 2.5
        assert np.isin(scene.label[tall], [LABELS.index("forest"), LABELS.index("urban")]).all()
        flat = np.isin(scene.label, [LABELS.index("water"), LABELS.index("road")])
        assert not scene.height[flat].any()
        assert scene.height.max() < 26
        assert not (scene.shadow & scene.layover).any()


@pytest.mark.parametrize("kind", ["water", "forest", "field", "town"])
def test_scenes_of_a_kind_are_dominated_by_it(kind: str) -> None:
    found = []
    for scene in scenes_of(kind):
        shares = np.bincount(scene.label.ravel(), minlength=9) / scene.label.size
        found.append(dominant_class(dict(zip(LABELS, shares, strict=True))))
    assert found.count(kind) >= len(found) - 1, found


def test_kinds_are_spread_evenly_by_their_weights() -> None:
    cfg = replace(SMALL, scenes=60, scene_kinds=KindWeights(town=2.0, mixed=0.0))
    kinds = [acquisition(cfg, name).kind for name in scene_ids(cfg)]
    counts = {kind: kinds.count(kind) for kind in SCENE_KINDS}
    assert counts["mixed"] == 0
    for kind, share in (("water", 12), ("forest", 12), ("field", 12), ("town", 24)):
        assert abs(counts[kind] - share) <= 2, counts


def test_shadow_covers_a_credible_share_of_mixed_scenes() -> None:
    shares = [scene.shadow.mean() for scene in scenes_of("mixed")]
    assert 0.05 <= np.mean(shares) <= 0.16
    assert np.mean([scene.layover.mean() for scene in scenes_of("mixed")]) > 0.02


def test_open_water_lies_on_the_noise_floor() -> None:
    cfg = replace(SMALL, size_px=384, scene_kinds=only("water"), texture=False, optical=False)
    scene = simulate_scene(cfg, scene_ids(cfg)[0])
    # Far from every shore: trees 16 m high are laid over 46 px into the lake.
    lake = uniform_filter((scene.label == 1).astype(float), 101) > 0.9999
    assert lake.sum() > 2000
    level = 10 * np.log10((np.abs(scene.sar[lake]) ** 2).mean())
    floor = 10 * np.log10(10**-2.8 + 10**-2.6)
    assert level == pytest.approx(floor, abs=0.3)


def step_skewness(scene: ProceduralScene, axis: int, *, flip: bool = False) -> float:
    """Skewness of steps over 6 px of the smoothed log amplitude."""
    amplitude = np.abs(scene.sar)
    smooth = uniform_filter(np.log(amplitude[:, ::-1] if flip else amplitude), 9)
    steps = smooth[6:] - smooth[:-6] if axis == 0 else smooth[:, 6:] - smooth[:, :-6]
    return float(skew(steps.ravel()))


@pytest.mark.parametrize("kind", ["town", "forest", "mixed"])
def test_look_direction_shows_in_range_and_not_in_azimuth(kind: str) -> None:
    """Layover then shadow makes falls along range steeper than rises; no claim on real scenes."""
    along_range = [step_skewness(scene, 1) for scene in scenes_of(kind)]
    along_azimuth = [step_skewness(scene, 0) for scene in scenes_of(kind)]
    flipped = [step_skewness(scene, 1, flip=True) for scene in scenes_of(kind)]
    assert np.mean(along_range) < -0.1
    assert np.mean(np.sign(along_range) < 0) > 0.6
    assert flipped == pytest.approx([-value for value in along_range], abs=1e-6)
    assert abs(np.mean(along_azimuth)) < 0.5 * abs(np.mean(along_range))


def test_ambiguity_leaves_a_ghost_of_bright_ground() -> None:
    cfg = ProceduralConfig(
        seed=1, scenes=1, size_px=256, flat_class="water", trihedrals=1, optical=False,
        nesz_db=-60.0, texture=False,
    )  # fmt: skip
    name = scene_ids(cfg)[0]
    clean, ghost = (
        simulate_scene(replace(cfg, ambiguity_db=level, ambiguity_shift_m=21.0), name)
        for level in (None, -25.0)
    )
    place = clean.objects[0]
    row, col = int(place["row"]), int(place["col"])
    there = row + 60 if row < 128 else row - 60
    peaks = [np.abs(scene.sar[row, col]) ** 2 for scene in (clean, ghost)]
    echo = [np.abs(scene.sar[there, col]) ** 2 for scene in (clean, ghost)]
    assert peaks[1] == pytest.approx(peaks[0], rel=0.02)
    assert 10 * np.log10(echo[1] / peaks[1]) == pytest.approx(-25.0, abs=1.5)
    assert echo[0] < 0.1 * echo[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"flat_class": "lava"}, "flat_class 'lava'"),
        ({"scene_kinds": KindWeights(0, 0, 0, 0, 0)}, "weights"),
        ({"size_px": 8}, "size_px"),
        ({"incidence_deg": 89.0}, "incidence_deg"),
        ({"looks": 0}, "looks"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(changes: dict[str, object], said: str) -> None:
    cfg = replace(SMALL, **changes)
    with pytest.raises(ConfigError, match=said):
        simulate_scene(cfg, scene_ids(SMALL)[0])


@pytest.mark.parametrize("name", ["proc9-l0000-s000", "scene-1", "proc4-l0000-s000x"])
def test_an_id_of_another_archive_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="ids look like proc4-l0000-s000"):
        simulate_scene(SMALL, name)
