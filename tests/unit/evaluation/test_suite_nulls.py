"""Nulls in the evaluation: of sets that are made anew, and of copies of the real tiles."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from speckle_tiles import tiles, to_code

from hpc.errors import DataError
from sarhpc.evaluation.config import EvaluateConfig
from sarhpc.evaluation.suite import Evaluation, evaluate
from sarhpc.measures.features import amplitude
from sarhpc.measures.nulls import NoVerdict, Verdict

CONFIG = EvaluateConfig(bootstrap=20)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    real = tiles(0, 40)
    other = tiles(1, 30)
    blurred = np.stack([to_code(gaussian_filter(amplitude(t), 0.6)) for t in other[:12]])
    copies = np.stack([to_code(gaussian_filter(amplitude(t), 0.6)) for t in real])
    sets = {"same": other, "blur": blurred, "copy": real, "blurred copy": copies}
    scenes = [number // 2 for number in range(40)]
    return evaluate(real, sets, CONFIG, scenes=scenes, copies=["copy", "blurred copy"])


def test_a_defect_is_beyond_the_null_and_real_tiles_of_other_scenes_are_not(
    evaluation: Evaluation,
) -> None:
    blur, same = (evaluation.sets[name].measures["E5_lsd"] for name in ("blur", "same"))
    assert isinstance(blur, Verdict)
    assert isinstance(same, Verdict)
    assert blur.p_value == 1 / 200
    assert same.p_value > 0.01
    assert (blur.tiles, blur.groups, blur.groups_drawn) == (12, 20, 10)


def test_of_more_tiles_than_the_real_ones_can_be_held_against_as_many_as_can(
    evaluation: Evaluation,
) -> None:
    for measure in evaluation.sets["same"].measures.values():
        assert isinstance(measure, Verdict)
        assert (measure.tiles, measure.reference_tiles) == (20, 20)


def test_copies_are_held_against_real_tiles_of_other_scenes(evaluation: Evaluation) -> None:
    """Copies without a loss are as far from tiles of other scenes as the tiles themselves."""
    assert evaluation.sets["real"].measures == {}
    for name, copy in evaluation.sets["copy"].measures.items():
        assert isinstance(copy, Verdict), name
        assert copy.p_value > 0.01, name
        assert copy.raw > 0 or name == "E3_bright", "no tile is compared with its own copy"
    blurred = evaluation.sets["blurred copy"].measures["E5_lsd"]
    assert isinstance(blurred, Verdict)
    assert blurred.p_value == 1 / 200


def test_copies_must_be_of_all_real_tiles_in_order() -> None:
    real = tiles(0, 16)
    with pytest.raises(DataError, match="12 copies of 16 real tiles"):
        evaluate(real, {"copy": real[:12]}, CONFIG, scenes=range(16), copies=["copy"])


def test_too_few_scenes_are_said_in_the_place_of_a_verdict() -> None:
    few = evaluate(tiles(0, 8), {"same": tiles(1, 4)}, CONFIG, scenes=[0, 1] * 4)
    null = few.sets["same"].measures["E3_w1"]
    assert isinstance(null, NoVerdict)
    assert "2 scenes" in null.reason
    document = few.to_json()["sets"]["same"]["measures"]["E3_w1"]
    assert json.loads(json.dumps(document, allow_nan=False))["reason"] == null.reason
    assert "p_value" not in document
