"""The score of generated images against real tiles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from speckle_tiles import tiles, to_code

from hpc.errors import DataError
from sarhpc.evaluation.image_score import RealReference, real_reference, score_images
from sarhpc.measures.distances import DISTANCES
from sarhpc.measures.features import amplitude, measure
from sarhpc.measures.score import SCORED


@pytest.mark.slow
def test_the_score_orders_what_training_passes_through() -> None:
    real = real_reference(tiles(0, 48), scenes=range(48))
    alike = score_images(tiles(1, 24), real)
    louder = score_images(tiles(1, 24, gain=1.5), real)
    blurred = np.stack([to_code(gaussian_filter(amplitude(t), 0.6)) for t in tiles(1, 24)])
    smooth = score_images(blurred, real)
    assert alike["score"] < louder["score"] < smooth["score"]
    # The scores of a perfect generator spread by 0.33 (test_nulls.py).
    assert abs(alike["score"]) < 1.0
    assert set(alike) == {*DISTANCES, "score"}


@pytest.mark.slow
@pytest.mark.parametrize("count", [8, 32])
def test_images_as_good_as_real_score_0_on_average_whatever_their_number(count: int) -> None:
    pool = tiles(7, 150)
    known = measure(pool)
    rng = np.random.default_rng(count)
    scores = []
    for _ in range(12):
        order = rng.permutation(150)
        real = RealReference((96, 96), known.subset(order[:80]), tuple(range(80)), seed=0)
        scores.append(score_images(pool[order[80 : 80 + count]], real)["score"])
    print(f"{count} images: score {np.mean(scores):+.3f}, spread {np.std(scores):.2f}")
    # 12 draws of a spread of 0.33: 0.095 (one sigma).
    assert np.mean(scores) == pytest.approx(0, abs=0.3)


def test_scores_of_few_scenes_only_order_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    real = real_reference(tiles(0, 14), scenes=[number // 2 for number in range(14)])
    alike = score_images(tiles(1, 4), real)
    louder = score_images(tiles(1, 4, gain=1.5), real)
    assert alike["score"] < louder["score"]
    assert alike["score"] == pytest.approx(np.mean([np.log(alike[name]) for name in SCORED]))
    assert "only order checkpoints" in caplog.text
    assert "7 scenes" in caplog.text


def test_images_that_cannot_be_compared_are_refused() -> None:
    real = real_reference(tiles(0, 8), scenes=range(8))
    with pytest.raises(DataError, match=r"train\.validation_prompts"):
        score_images(tiles(1, 3), real)
    with pytest.raises(DataError, match=r"train\.image_px"):
        score_images(tiles(1, 8)[:, :64, :64], real)
    with pytest.raises(DataError, match=r"train\.judge\.splits"):
        real_reference(tiles(0, 7), scenes=range(7))
    constant = tiles(1, 4)
    constant[2] = 9
    with pytest.raises(DataError, match=r"images cannot be measured: tile 2: .* constant"):
        score_images(constant, real)
    with pytest.raises(DataError, match="name one each"):
        real_reference(tiles(0, 8), scenes=range(7))


def test_constant_real_tiles_judge_nothing_and_are_told(caplog: pytest.LogCaptureFixture) -> None:
    calm = tiles(0, 12)
    calm[[3, 7]] = 1
    real = real_reference(calm, scenes=list("abcdefghijkl"))
    assert real.scenes == tuple("abcefgijkl")
    assert np.array_equal(real.reference.mean_db, measure(np.delete(calm, [3, 7], 0)).mean_db)
    assert "2 of 12 real tiles are constant" in caplog.text
    calm[:5] = 1
    with pytest.raises(DataError, match="6 real tiles are too few"):
        real_reference(calm, scenes=range(12))
