"""The measures against analytic speckle and against the defects each of them must see."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from speckle_tiles import speckle, tiles, to_code

from hpc.errors import DataError
from sarhpc.evaluation.config import EvaluateConfig
from sarhpc.evaluation.suite import Evaluation, describe, evaluate
from sarhpc.measures.distances import DISTANCES
from sarhpc.measures.features import amplitude, measure
from sarhpc.measures.nulls import NoVerdict, Verdict


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    real = tiles(0, 32)
    other = tiles(1)
    blurred = np.stack([to_code(gaussian_filter(amplitude(t), 0.6)) for t in other])
    return evaluate(
        real,
        {
            "same": other,
            "range_flip": other[:, :, ::-1],
            "azimuth_flip": other[:, ::-1, :],
            "gain_1dB": tiles(1, gain=10 ** (1 / 20)),
            "blur": blurred,
        },
        EvaluateConfig(bootstrap=50),
        scenes=range(32),
    )


def verdict(evaluation: Evaluation, name: str, metric: str) -> Verdict:
    found = evaluation.sets[name].measures[metric]
    assert isinstance(found, Verdict)
    return found


def test_looks_of_averaged_speckle_are_their_number() -> None:
    rng = np.random.default_rng(0)
    one = to_code(0.15 * np.abs(speckle(rng, 256)))
    four = to_code(0.15 * np.sqrt(np.mean([np.abs(speckle(rng, 256)) ** 2 for _ in range(4)], 0)))
    # A tile of 256 px scatters by 1 %.
    found = [describe(measure([tile]), {}).enl_mode for tile in (one, four)]
    assert found == pytest.approx([1, 4], rel=0.05)


def test_real_tiles_of_other_scenes_are_like_real(evaluation: Evaluation) -> None:
    for name in DISTANCES:
        assert verdict(evaluation, "same", name).p_value > 0.01, name


def test_gain_is_seen_by_the_histogram_in_dB(evaluation: Evaluation) -> None:
    assert verdict(evaluation, "gain_1dB", "E3_w1").raw == pytest.approx(1.0, abs=0.35)


def test_blur_is_seen_by_looks_spectrum_and_autocorrelation(evaluation: Evaluation) -> None:
    for name in ("E1_enl", "E4_acf", "E5_lsd", "E6_texture"):
        blur, same = (verdict(evaluation, which, name) for which in ("blur", "same"))
        assert blur.p_value == 1 / 200, name
        assert blur.low > same.high, name


def test_flips_are_the_same_to_levels_and_looks(evaluation: Evaluation) -> None:
    for name in ("E1_enl", "E2_log_cumulants", "E3_jsd", "E3_level_spread", "E3_bright"):
        flips = (verdict(evaluation, f"{axis}_flip", name).raw for axis in ("range", "azimuth"))
        assert next(flips) == pytest.approx(next(flips)), name


def test_no_look_direction_is_told(evaluation: Evaluation) -> None:
    # Real data contradict the sign that was expected; measures/look_direction.py expects none.
    assert not [name for name in evaluation.sets["same"].measures if name.startswith("E8")]
    assert "look" not in evaluation.to_json()["sets"]["range_flip"]


def test_closer_sets_win_the_comparison(evaluation: Evaluation) -> None:
    assert evaluation.better["same<blur"]["E5_lsd"] == 1.0
    assert evaluation.better["blur<same"]["E5_lsd"] == 0.0


def test_too_few_or_ill_sized_tiles_are_refused() -> None:
    real = tiles(0, 4)
    with pytest.raises(DataError, match="needs 4"):
        evaluate(real, {"few": real[:2]}, EvaluateConfig())
    with pytest.raises(DataError, match="has tiles"):
        evaluate(real, {"small": real[:, :32, :32]}, EvaluateConfig())


def test_the_numbers_are_plain_json(evaluation: Evaluation) -> None:
    document = evaluation.to_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document


@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_constant_tile_is_refused_by_its_set_and_number(value: int) -> None:
    real, other = tiles(0, 4), tiles(1, 4)
    other[2] = value
    with pytest.raises(DataError, match=r"set 'odd': tile 2: amplitude .* constant"):
        evaluate(real, {"odd": other}, EvaluateConfig(bootstrap=2))


def test_sets_without_scenes_have_distances_and_no_verdict() -> None:
    found = evaluate(tiles(0, 4), {"other": tiles(1, 4)}, EvaluateConfig(bootstrap=2))
    measures = found.sets["other"].measures
    assert set(measures) == set(DISTANCES)
    for one in measures.values():
        assert isinstance(one, NoVerdict)
        assert one.raw >= 0
        assert "scenes" in one.reason
