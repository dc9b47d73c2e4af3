"""Scores, intervals, verdicts and gates of E12 from what networks did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpc.errors import ConfigError
from sarhpc.evaluation.config import EvaluateConfig, GatesConfig, check_config
from sarhpc.evaluation.gates import FAIL, PASS, UNDECIDED, line_of, manifest_gate, use_gates
from sarhpc.evaluation.page import page_environment
from sarhpc.evaluation.page_sections import make_sections
from sarhpc.evaluation.set_facts import manifest_of
from sarhpc.evaluation.use.result import UseResult, combine
from sarhpc.evaluation.use.settings import MIXED, ONLY_SYNTHETIC, REAL, SHUFFLED
from sarhpc.shards.sample import SAMPLE_SCHEMA

GROUPS, IMAGES = 12, 20
"""Test scenes, and images of each class in each."""


def fits(setting: str, share: float, accuracy: float, seeds: int = 3) -> list[dict[str, Any]]:
    """What networks did that read this share of the images of two classes."""
    rng = np.random.default_rng([len(setting), round(100 * accuracy)])
    found = []
    for seed in range(seeds):
        right = rng.binomial(IMAGES, accuracy, (GROUPS, 2))
        rows = [
            [group, true, read, int(count if read == true else IMAGES - count)]
            for group in range(GROUPS)
            for true, count in enumerate(right[group])
            for read in (true, 1 - true)
        ]
        found.append(
            {"setting": setting, "share": share, "seed": seed, "labels": round(100 * share),
             "synthetic": 0, "confusions": {"test": rows, "synthetic": rows}}
        )  # fmt: skip
    return found


def facts(**changed: Any) -> dict[str, Any]:
    return {
        "task": "classification",
        "classes": ["<b>forest</b>", "lake"],
        "images": {"train": 100, "test": 480, "synthetic": 480},
        "groups": {"test": GROUPS, "synthetic": GROUPS},
        "per_class": {"<b>forest</b>": 240, "lake": 240},
        "grouped": True,
        "notes": [],
        "pixels": "amplitude",
        "left_out": {"0.01": "too few"},
    } | changed


def result(
    mixed: float, shuffled: float = 0.5, synthetic: float = 0.85, **changed: Any
) -> UseResult:
    return combine(
        facts(**changed),
        [
            *fits(REAL, 0.1, 0.7),
            *fits(MIXED, 0.1, mixed),
            *fits(ONLY_SYNTHETIC, 0.0, synthetic),
            *fits(SHUFFLED, 1.0, shuffled),
        ],
    )


def test_scores_have_intervals_and_gains_a_verdict() -> None:
    found = result(0.9)
    scores = {one.setting: one for one in found.scores}
    assert scores[REAL].value == pytest.approx(0.7, abs=0.03)
    assert scores[REAL].low < scores[REAL].value < scores[REAL].high
    assert scores[REAL].high - scores[REAL].low < 0.15
    assert (found.gains[0].verdict, found.reason) == ("gain", "")
    assert found.gains[0].value == pytest.approx(0.2, abs=0.04)
    assert result(0.7).gains[0].verdict == "no difference seen"
    assert result(0.5).gains[0].verdict == "loss"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"groups": {"test": GROUPS, "synthetic": GROUPS} | {"test": 5}}, "of 5 scenes"),
        ({"per_class": {"forest": 9, "lake": 99}}, "class forest has 9 of the 10"),
        ({"shuffled": 0.8}, "where chance is 0.500: the classes show without any label"),
    ],
)
def test_there_is_no_verdict_on_too_little_or_where_shuffled_labels_are_learned(
    changed: dict[str, Any], reason: str
) -> None:
    if "groups" in changed:
        rows = [*fits(REAL, 0.1, 0.7), *fits(MIXED, 0.1, 0.9), *fits(ONLY_SYNTHETIC, 0.0, 0.9)]
        for one in rows:
            kept = [row for row in one["confusions"]["test"] if row[0] < 5]
            one["confusions"] = {**one["confusions"], "test": kept}
        found = combine(facts(**changed), rows)
    else:
        found = result(0.9, **changed)
    assert reason in found.reason
    assert found.gains[0].verdict == "no verdict"
    gates = use_gates(GatesConfig(use_gain=0.0), found.to_json())
    assert {gate.verdict for gate in gates} == {UNDECIDED}


def test_networks_that_learn_nothing_from_real_labels_give_no_ratio() -> None:
    rows = [*fits(REAL, 0.1, 0.0), *fits(MIXED, 0.1, 0.9), *fits(ONLY_SYNTHETIC, 0.0, 0.9)]
    found = combine(facts(), rows)
    assert found.ratio is None
    [gate] = use_gates(GatesConfig(), found.to_json())
    assert gate.verdict == UNDECIDED
    assert "where chance is 0.500: give more steps" in line_of(gate)
    [section] = make_sections({"use": found.to_json()}, Path(), page_environment())
    assert section.fault == ""


def test_gates_hold_the_corpus_to_its_use() -> None:
    config = GatesConfig(use_ratio=0.8, use_gain=0.05)
    good, bad = (use_gates(config, one.to_json()) for one in (result(0.9), result(0.7)))
    assert [gate.verdict for gate in good] == [PASS, PASS]
    assert [gate.verdict for gate in bad] == [PASS, FAIL]
    [ratio] = use_gates(GatesConfig(), result(0.9, synthetic=0.5).to_json())
    assert (ratio.name, ratio.verdict) == ("use_ratio", FAIL)
    assert "(at least 0.8)" in line_of(ratio)
    assert not use_gates(GatesConfig(use_ratio=None), result(0.9).to_json())


def test_chance_over_chance_is_no_pass() -> None:
    fits_at_chance = [
        *fits(REAL, 0.1, 0.5),
        *fits(MIXED, 0.1, 0.9),
        *fits(ONLY_SYNTHETIC, 0.0, 0.5),
    ]
    found = combine(facts(), fits_at_chance)
    ratio, gain = use_gates(GatesConfig(use_gain=0.1), found.to_json())
    assert (ratio.verdict, gain.verdict) == (UNDECIDED, PASS)
    assert "where chance is 0.500: give more steps (evaluate.use.steps)" in ratio.reason
    assert any(ratio.reason in line for line in found.lines())
    [section] = make_sections({"use": found.to_json()}, Path(), page_environment())
    assert "No verdict on synthetic over real: networks that learned from 10" in section.body


def test_the_manifest_gate_names_what_generated_images_lack() -> None:
    whole = {
        "schema": SAMPLE_SCHEMA, "synthetic": True, "prompt": "a lake", "seed": 0,
        "model_sha": "a", "config_fingerprint": "b",
    }  # fmt: skip
    assert manifest_of(whole) == ["images", "complete"]
    assert manifest_of({**whole, "seed": None}) == ["images", "seed"]
    assert manifest_of({**whole, "crs": "EPSG:2154"}) == ["images", "an empty geolocation"]
    assert manifest_of({"synthetic": True}) == manifest_of({**whole, "synthetic": False}) == []
    [gate] = manifest_gate(GatesConfig(), {"images": 4, "complete": 3, "seed": 1})
    assert (gate.verdict, gate.value, gate.reason) == (FAIL, 0.75, "some lack seed")
    assert manifest_gate(GatesConfig(), {"images": 4, "complete": 4})[0].verdict == PASS
    assert not manifest_gate(GatesConfig(), {})
    assert not manifest_gate(GatesConfig(manifest=None), {"images": 4})


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_the_page_has_a_figure_the_gains_and_every_score(task: str) -> None:
    found = result(0.9, task=task).to_json()
    [section] = make_sections({"use": found}, Path(), page_environment())
    assert section.fault == ""
    for text in ("TRTR", "TSTR", "TSRTR", "TRTS", "control", "<svg", "10 (10 %)", "left out"):
        assert text in section.body
    assert "&lt;b&gt;forest" in section.body
    assert "<b>forest" not in section.body
    assert 'aria-label="Balanced accuracy against real labels; chance is 0.50.' in section.body
    [section] = make_sections({"use": {"reason": "no <i>"}}, Path(), page_environment())
    assert "Not measured: no &lt;i&gt;." in section.body


@pytest.mark.parametrize(
    "words",
    [
        {"task": "detection"}, {"shares": []}, {"shares": [0.0]}, {"shares": [0.1, 0.1]},
        {"classes": ["a"]}, {"test_share": 1.0}, {"seeds": 0}, {"steps": 1}, {"size": 16},
        {"tiles": 7},
    ],
)  # fmt: skip
def test_settings_without_meaning_are_refused_by_name(words: dict[str, Any]) -> None:
    config = EvaluateConfig()
    for name, given in words.items():
        setattr(config.use, name, given)
    with pytest.raises(ConfigError, match=rf"evaluate\.use\.({next(iter(words))}|shares)"):
        check_config(config)
