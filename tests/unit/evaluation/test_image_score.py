"""The score of generated images against real tiles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from speckle_tiles import tiles, to_code

from hpc.errors import DataError
from sarhpc.evaluation.image_score import real_reference, score_images
from sarhpc.measures.distances import DISTANCES
from sarhpc.measures.features import amplitude


@pytest.mark.slow
def test_the_score_orders_what_training_passes_through() -> None:
    real = real_reference(tiles(0, 48))
    alike = score_images(tiles(1, 24), real)
    louder = score_images(tiles(1, 24, gain=1.5), real)
    blurred = np.stack([to_code(gaussian_filter(amplitude(t), 0.6)) for t in tiles(1, 24)])
    smooth = score_images(blurred, real)
    assert 0 <= alike["score"] < louder["score"] < smooth["score"]
    assert alike["score"] < 1.0, "not three times what real halves differ by"
    assert score_images(tiles(0, 48), real)["score"] == 0.0
    assert set(alike) == {*DISTANCES, "score"}


def test_images_that_cannot_be_compared_are_refused() -> None:
    real = real_reference(tiles(0, 8))
    with pytest.raises(DataError, match=r"train\.validation_prompts"):
        score_images(tiles(1, 3), real)
    with pytest.raises(DataError, match=r"train\.image_px"):
        score_images(tiles(1, 8)[:, :64, :64], real)
    with pytest.raises(DataError, match=r"train\.judge\.splits"):
        real_reference(tiles(0, 7))
