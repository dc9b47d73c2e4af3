from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from sarhpc.archive.interpolation import bilinear, box_means

PLANES = np.random.default_rng(3).normal(size=(2, 30, 40)).astype(np.float32)


@pytest.mark.parametrize("kind", ["free", "parallel", "turned", "adjacent"])
def test_every_path_is_the_same_bilinear_interpolation(kind: str) -> None:
    rng = np.random.default_rng(4)
    rows, cols = {
        "free": (rng.uniform(-1, 30, (12, 9)), rng.uniform(-1, 40, (12, 9))),
        "parallel": (rng.uniform(-1, 30, (12, 1)), rng.uniform(-1, 40, (1, 9))),
        "turned": (rng.uniform(-1, 30, (1, 9)), rng.uniform(-1, 40, (12, 1))),
        "adjacent": (np.arange(4.0, 16)[:, None], np.arange(20.0, 29)[None, :] + 0.25),
    }[kind]
    at = np.broadcast_arrays(rows, cols)
    expected = [map_coordinates(plane, at, order=1, mode="nearest") for plane in PLANES]
    found = bilinear(PLANES, rows, cols)
    assert found.dtype == np.float32
    assert found == pytest.approx(np.stack(expected), abs=2e-3)


def test_whole_pixels_are_returned_to_the_bit() -> None:
    rows = np.arange(30.0)[::-1, None] + 1e-7
    assert np.array_equal(bilinear(PLANES, rows, np.arange(40.0)[None]), PLANES[:, ::-1])


def test_box_means_keep_the_mean() -> None:
    means = box_means(PLANES, 3, 4)
    assert means.shape == (2, 10, 10)
    assert means.mean() == pytest.approx(PLANES.mean(), abs=1e-6)
    assert means[0, 0, 0] == pytest.approx(PLANES[0, :3, :4].mean(), abs=1e-6)
    assert box_means(PLANES, 7, 7).shape == (2, 5, 6)
