"""The measures against analytic speckle and against the defects each of them must see."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from speckle_tiles import aperture, speckle, tiles, to_code

from hpc.errors import DataError
from sarhpc.evaluation.config import EvaluateConfig
from sarhpc.evaluation.suite import Evaluation, evaluate
from sarhpc.measures.features import amplitude, measure, speckle_acf


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
    )


def test_acf_of_taylor_speckle_is_the_analytic_one() -> None:
    # |rho_c|^2 with rho_c the inverse transform of |H|^2 (Vachon & Raney 1989).
    rng = np.random.default_rng(0)
    size = 512
    line = aperture(size)
    rho = np.fft.ifft(line**2)
    expected = np.abs(rho[1:3] / rho[0]) ** 2
    acf_range, acf_azimuth = speckle_acf(np.abs(speckle(rng, size)) ** 2)
    assert expected[0] == pytest.approx(0.4075, abs=0.003)
    # The 15x15 local mean takes a little of the long lags away.
    assert acf_range[:2] == pytest.approx(expected, abs=0.02)
    assert acf_azimuth[:2] == pytest.approx(expected, abs=0.02)


def test_local_looks_of_single_look_speckle_are_about_one() -> None:
    rng = np.random.default_rng(0)
    one = to_code(0.15 * np.abs(speckle(rng, 256)))[None]
    four = to_code(0.15 * np.sqrt(np.mean([np.abs(speckle(rng, 256)) ** 2 for _ in range(4)], 0)))
    result = evaluate(
        np.repeat(one, 4, 0), {"four": np.repeat(four[None], 4, 0)}, EvaluateConfig(bootstrap=5)
    )
    assert result.sets["real"].enl_mode == pytest.approx(1.1, abs=0.2)
    assert result.sets["four"].enl_mode / result.sets["real"].enl_mode == pytest.approx(4, rel=0.15)


def test_real_against_real_is_at_the_floor(evaluation: Evaluation) -> None:
    for name in ("E3_w1", "E4_acf", "E5_lsd", "E3_jsd"):
        ratio = evaluation.sets["same"].measures[name].ratio
        assert ratio is not None, name
        assert ratio < 3, name


def test_gain_is_seen_by_the_histogram_in_dB(evaluation: Evaluation) -> None:
    assert evaluation.sets["gain_1dB"].measures["E3_w1"].raw == pytest.approx(1.0, abs=0.35)


def test_blur_is_seen_by_spectrum_and_autocorrelation(evaluation: Evaluation) -> None:
    blur, same = evaluation.sets["blur"].measures, evaluation.sets["same"].measures
    assert blur["E5_lsd"].low > 3 * same["E5_lsd"].raw
    assert blur["E4_acf"].low > same["E4_acf"].high
    assert blur["E1_enl"].raw > same["E1_enl"].raw


def test_flips_are_the_same_to_levels_and_looks(evaluation: Evaluation) -> None:
    flipped, azimuth = evaluation.sets["range_flip"], evaluation.sets["azimuth_flip"]
    for name in ("E1_enl", "E3_jsd", "E3_level_spread"):
        assert flipped.measures[name].raw == pytest.approx(azimuth.measures[name].raw), name


def test_no_look_direction_is_told(evaluation: Evaluation) -> None:
    # Real data contradict the sign that was expected; measures/look_direction.py expects none.
    assert not [name for name in evaluation.sets["real"].measures if name.startswith("E8")]
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


def test_black_tiles_stay_finite() -> None:
    features = measure(np.zeros((1, 64, 64), np.uint8))
    assert all(np.isfinite(getattr(features, n)).all() for n in features.__dataclass_fields__)
