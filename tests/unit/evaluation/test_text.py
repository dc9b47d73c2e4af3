"""E10 of sets whose images and captions are vectors that are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sarhpc.evaluation.caption_content import class_of
from sarhpc.evaluation.page import page_environment
from sarhpc.evaluation.page_sections import make_sections
from sarhpc.evaluation.text import (
    CaptionedVectors,
    common_classes,
    interval,
    judge_text,
    other_captions,
)
from sarhpc.evaluation.text_config import LAND_COVER, TextConfig

GROUNDS = ("a lake", "a forest", "a crop field", "a town")
PLACES = ("", " in the near range", " in the far range")
DETAILS = tuple(f"spot {letter}" for letter in "abcdef")


def read(texts: Sequence[str]) -> np.ndarray:
    """Vectors of class, place and detail: what a CLIP that reads all of it would see."""
    rows = []
    for text in texts:
        row = np.zeros(16)
        named = class_of(text, LAND_COVER)
        row[list(LAND_COVER).index(named) if named else 15] = 3
        row[4] = ("near range" in text) - 1.0 * ("far range" in text)
        row[5:11] = [2.0 * (detail in text) for detail in DETAILS]
        rows.append(row / np.linalg.norm(row))
    return np.array(rows, np.float32)


def captions(count: int = 240) -> tuple[str, ...]:
    rng = np.random.default_rng(0)
    return tuple(
        f"{rng.choice(GROUNDS)} with {rng.choice(DETAILS)}{rng.choice(PLACES)}"
        for _ in range(count)
    )


def judged(said: Sequence[str], shown: Sequence[str], **changes: Any) -> dict[str, Any]:
    of = CaptionedVectors(read(shown), tuple(said), ("",) * len(said))
    return judge_text(of, read, TextConfig(model="m", **changes), 100, 0)


def test_images_that_show_their_captions_pass_every_measure_and_the_control_none() -> None:
    said = captions()
    found = judged(said, said)
    assert found["score"]["value"] == pytest.approx(100)
    assert found["r_precision"]["value"] == 1
    assert found["classes"]["value"] == 1
    assert found["relations"]["range"]["value"] == 1
    assert found["r_precision"]["shuffled"]["low"] < 0.15
    assert found["classes"]["shuffled"]["value"] == pytest.approx(0.25, abs=0.08)
    control = found["relations"]["range"]["shuffled"]
    assert control["low"] < 0.5 < control["high"]
    assert "0 captions name left" in found["relations"]["left and right"]["left_out"]


def test_images_of_other_captions_are_at_chance_with_intervals_that_hold_it() -> None:
    said = captions()
    rng = np.random.default_rng(1)
    found = judged(said, [said[row] for row in rng.permutation(len(said))])
    for name, chance in (("r_precision", 0.1), ("classes", 0.25)):
        assert found[name]["low"] - 0.03 < chance < found[name]["high"] + 0.03
    relation = found["relations"]["range"]
    assert relation["low"] < relation["chance"] < relation["high"]
    assert relation["images"] < len(said)


def test_a_class_that_is_painted_as_another_is_seen_by_class_and_by_f1() -> None:
    said = captions()
    shown = [text.replace("a lake", "a town") for text in said]
    found = judged(said, shown)["classes"]
    assert found["value"] < 0.7
    water, town = found["names"].index("water"), found["names"].index("town")
    assert found["confusion"][water][town] == found["asked"]["water"] > 0


@pytest.mark.parametrize(
    ("said", "part", "named"),
    [
        (("a parking lot with spot a",) * 20, "classes", "0 captions name a class"),
        (("a lake",) * 20, "classes", "of 1 classes"),
        (("a lake", "a forest") * 10, "r_precision", "2 different captions, and R@1 of 10"),
    ],
)
def test_what_cannot_be_measured_says_why_and_the_rest_is(
    said: tuple[str, ...], part: str, named: str
) -> None:
    found = judged(said, said)
    assert named in found[part]["left_out"]
    assert found["score"]["value"] > 90


def test_few_images_give_no_number() -> None:
    assert "3 images have a caption" in judged(captions(3), captions(3))["left_out"]


def test_intervals_are_over_scenes_where_they_are_known() -> None:
    values = np.repeat([0.0, 1.0] * 5, 20)
    apart = interval(lambda at: float(values[at].mean()), list(range(200)), 400, 0)
    scenes = interval(lambda at: float(values[at].mean()), [n // 20 for n in range(200)], 400, 0)
    assert (apart["value"], scenes["value"]) == (0.5, 0.5)
    assert scenes["high"] - scenes["low"] > 3 * (apart["high"] - apart["low"])
    assert (apart["groups"], scenes["groups"]) == (200, 10)


def test_in_the_control_no_image_keeps_its_text_where_that_is_possible() -> None:
    said = ["a lake"] * 40 + ["a town"] * 40 + ["a field"] * 20
    moved = other_captions(said, 0)
    assert sorted(moved.tolist()) == list(range(100))
    assert all(said[row] != said[other] for row, other in enumerate(moved))


def test_sets_without_a_common_class_are_named() -> None:
    water, town = ({"classes": {"asked": {"water": a, "town": b}}} for a, b in ((3, 0), (0, 2)))
    reasons = common_classes({"real": water, "synthetic": town}, "real")
    assert "synthetic name town and those of real water: no class in common" in reasons["synthetic"]
    assert common_classes({"real": water, "synthetic": water}, "real") == {}


def test_the_section_shows_values_controls_and_what_was_left_out(tmp_path: Path) -> None:
    said = captions()
    block = {
        "schema": "sarhpc.text/1",
        "model": "<b>clip</b>",
        "revision": "0123",
        "classes": {name: list(phrases) for name, phrases in LAND_COVER.items()},
        "sets": {"real": judged(said, said), "this run": judged(said[:9], said[:9])},
        "contract": {"this run": ["pixel_m: 0.35 against 1"]},
        "left_out": ["no image of <i>base</i> has a caption"],
    }
    [section] = make_sections({"text": block}, tmp_path, page_environment())
    assert section.fault == ""
    for text in (
        "own caption nearest of 10",
        "near range and far range as the caption says",
        "other captions:",
        "&lt;b&gt;clip",
        "no image of &lt;i&gt;base",
        "pixel_m: 0.35 against 1",
    ):
        assert text in section.body, text
    assert "left and right" not in section.body.replace("left and right or upper", "")
