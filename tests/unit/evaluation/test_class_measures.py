from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sarhpc.evaluation.class_measures import class_block
from sarhpc.evaluation.page import page_environment
from sarhpc.evaluation.page_sections import make_sections
from sarhpc.measures.features import Features, measure


def tiles(count: int, scale: float, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    return measure(rng.rayleigh(scale, (count, 32, 32)))


def test_a_class_that_is_too_bright_is_seen_and_a_rare_one_left_out() -> None:
    real = tiles(13, 0.1, 0)
    made = tiles(8, 0.2, 1)
    labels = ["field"] * 6 + ["water"] * 6 + ["town"]
    sets = {"real": (real, labels), "<this>": (made, ["field"] * 5 + ["town"] * 2 + [None])}
    block = class_block(sets)
    assert list(block["classes"]) == ["field"], "no other class has four tiles in two sets"
    field = block["classes"]["field"]
    assert field["real"]["tiles"] == 6
    assert field["<this>"]["mean_db"] - field["real"]["mean_db"] == pytest.approx(6.0, abs=0.3)
    [section] = make_sections({"classes": block}, Path(), page_environment(96))
    assert section.fault == ""
    assert "&lt;this&gt;" in section.body
    assert '<span class="fair">+6.0</span>' in section.body


def test_without_classes_there_is_no_block() -> None:
    real = tiles(4, 0.1, 0)
    assert class_block({"real": (real, [None] * 4), "other": (real, [None] * 4)}) == {}
    assert class_block({"real": (real, ["field"] * 4), "other": (real, [None] * 4)}) == {}
