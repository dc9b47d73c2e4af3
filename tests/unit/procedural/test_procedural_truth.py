"""True captions: what they say agrees with the label map, in few words, always the same."""

from __future__ import annotations

import numpy as np
import pytest

from hpc.errors import DataError
from sarhpc.archive.procedural.config import (
    CROP,
    FOREST,
    GRASS,
    ROAD,
    URBAN,
    WATER,
    ProceduralConfig,
)
from sarhpc.archive.procedural.simulate import scene_ids, simulate_scene
from sarhpc.archive.procedural.truth.captions import Truth, describe, dominant_class
from sarhpc.archive.procedural.truth.phrases import NOUNS, vocabulary

pytestmark = pytest.mark.slow

WORDS = {
    "water": {"lake", "water", "river"},
    "forest": {"forest"},
    "field": {"field", "fields", "farmland"},
    "town": {"town"},
}
"""Words of which a caption holds at least one when the class dominates."""


def tile(code: int, size: int = 128) -> np.ndarray:
    return np.full((size, size), code, dtype=np.uint8)


def test_fractions_are_the_label_histogram_without_nodata() -> None:
    label = tile(CROP)
    label[:32] = WATER
    label[32:64] = 0
    assert describe(label).class_fractions == {
        "water": pytest.approx(1 / 3, abs=1e-4),
        "crop": pytest.approx(2 / 3, abs=1e-4),
    }


@pytest.mark.parametrize(
    ("fractions", "expected"),
    [
        ({"water": 0.7, "grass": 0.3}, "water"),
        ({"water": 0.5, "grass": 0.5}, None),
        ({"crop": 0.3, "grass": 0.2, "shrub": 0.15, "forest": 0.35}, "field"),
        ({"urban": 0.2, "road": 0.1, "grass": 0.7}, "town"),
        ({"road": 0.3, "urban": 0.01, "grass": 0.69}, "field"),
        ({"forest": 1.0}, "forest"),
    ],
)
def test_dominant_class_follows_its_rule(fractions: dict[str, float], expected: str | None) -> None:
    assert dominant_class(fractions) == expected


@pytest.mark.parametrize(
    ("code", "group"), [(WATER, "water"), (FOREST, "forest"), (CROP, "field"), (URBAN, "town")]
)
def test_caption_names_the_dominant_class_whatever_the_phrase(code: int, group: str) -> None:
    for seed in range(25):
        truth = describe(tile(code), seed=seed)
        assert truth.dominant == group
        said = set(truth.caption.split())
        assert said & WORDS[group], truth.caption
        for other, words in WORDS.items():
            assert other == group or not said & words, truth.caption


def test_position_of_a_lake_is_named_in_range_and_azimuth() -> None:
    for where, place in (
        (np.s_[:, :20], "near range"),
        (np.s_[:, -20:], "far range"),
        (np.s_[:20, :], "upper part"),
        (np.s_[-20:, :], "lower part"),
    ):
        label = tile(CROP)
        label[where] = WATER
        truth = describe(label)
        assert ("lake", "in", place) in truth.facts
        assert f"in the {place}" in truth.caption
        assert f"a lake lies in the {place}" in truth.relations


def test_a_clearing_is_surrounded_by_forest() -> None:
    label = tile(FOREST)
    label[40:90, 40:90] = GRASS
    truth = describe(label)
    assert ("clearing", "surrounded by", "forest") in truth.facts
    assert "clearing" in truth.caption


@pytest.mark.parametrize(
    ("kind", "code", "ground", "main"),
    [
        ("river", WATER, CROP, "field"),
        ("path", GRASS, FOREST, "forest"),
        ("road", ROAD, CROP, "field"),
    ],
)
def test_a_course_right_across_crosses(kind: str, code: int, ground: int, main: str) -> None:
    label = tile(ground)
    label[60:68] = code
    line = [[64.0, float(c)] for c in range(-20, 600, 20)]
    truth = describe(label, [{"kind": kind, "width_m": 3.0, "line": line}])
    assert (kind, "crosses", main) in truth.facts
    assert {"crosses", "crossed"} & set(truth.caption.split())
    ends = describe(label, [{"kind": kind, "width_m": 3.0, "line": line[:3]}])
    assert (kind, "crosses", main) not in ends.facts


def test_window_places_scene_objects_in_the_tile() -> None:
    label = tile(CROP)
    label[40:52, 100:112] = URBAN
    house = {"kind": "building", "row": 302.0, "col": 490.0, "length_m": 9.0}
    near = describe(label, [house], window=(256, 384, 128, 128))
    assert ("house", "in", "far range") in near.facts
    assert not describe(label, [house], window=(0, 0, 128, 128)).facts


def test_caption_is_repeatable_and_varied() -> None:
    label = tile(FOREST)
    assert describe(label) == describe(label.copy())
    assert len({describe(label, seed=seed).caption for seed in range(20)}) >= 3


def test_two_classes_in_balance_are_both_named() -> None:
    label = tile(FOREST)
    label[:, 64:] = WATER
    truth = describe(label)
    assert truth.dominant is None
    said = set(truth.caption.split())
    assert said & WORDS["forest"]
    assert said & WORDS["water"]
    assert ("water", "beside", "forest") in truth.facts or (
        "forest", "beside", "water",
    ) in truth.facts  # fmt: skip


def test_unlabelled_tile_is_refused() -> None:
    with pytest.raises(DataError, match="has a label"):
        describe(tile(0))


def captions(size: int) -> list[Truth]:
    cfg = ProceduralConfig(seed=6, scenes=6, size_px=384, optical=False)
    found = []
    for name in scene_ids(cfg):
        scene = simulate_scene(cfg, name)
        for row in range(0, 384 - size + 1, size):
            for col in range(0, 384 - size + 1, size):
                label = scene.label[row : row + size, col : col + size]
                found.append(describe(label, scene.objects, window=(row, col, size, size)))
    return found


@pytest.mark.parametrize("size", [128, 384])
def test_captions_of_real_scenes_tell_their_class_in_few_words(size: int) -> None:
    allowed = vocabulary()
    assert len(allowed) < 200
    for truth in captions(size):
        said = truth.caption.split()
        assert set(said) <= allowed
        assert len(said) <= 30, truth.caption
        for relation in truth.relations:
            assert set(relation.split()) <= allowed, relation
        if truth.dominant is not None:
            assert set(said) & WORDS[truth.dominant], truth.caption
        assert sum(truth.class_fractions.values()) == pytest.approx(1.0, abs=1e-3)


def test_json_of_truth_is_plain() -> None:
    value = describe(tile(WATER)).to_json()
    assert set(value) == {"caption", "class_fractions", "relations", "facts", "dominant"}
    assert value["dominant"] == "water"


def test_every_phrase_is_lower_case_words() -> None:
    for phrases in NOUNS.values():
        for phrase in phrases:
            assert phrase == phrase.lower()
            assert all(word.isalpha() for word in phrase.split())
