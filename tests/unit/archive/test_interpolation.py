from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from sarhpc.archive.ancillary.interpolation import bilinear, box_means

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


def test_means_of_eight_bit_images_are_those_of_each_box_to_the_bit() -> None:
    codes = np.random.default_rng(3).integers(0, 256, (3, 61, 45)).astype(np.float32)
    before = codes.copy()
    for row_step, col_step in ((2, 2), (1, 3), (3, 1), (7, 4), (61, 45), (80, 80)):
        means = box_means(codes, row_step, col_step)
        assert means.dtype == np.float32
        for row, col in np.ndindex(means.shape[1:]):
            # A cut box repeats the image's edge.
            rows = np.minimum(np.arange(row_step) + row * row_step, 60)
            cols = np.minimum(np.arange(col_step) + col * col_step, 44)
            box = codes[:, rows][:, :, cols].astype(np.float64)
            assert np.array_equal(means[:, row, col], box.mean(axis=(1, 2)).astype(np.float32))
    assert np.array_equal(codes, before)


def test_box_means_keep_the_mean() -> None:
    means = box_means(PLANES, 3, 4)
    assert means.shape == (2, 10, 10)
    assert means.mean() == pytest.approx(PLANES.mean(), abs=1e-6)
    assert means[0, 0, 0] == pytest.approx(PLANES[0, :3, :4].mean(), abs=1e-6)
    assert box_means(PLANES, 7, 7).shape == (2, 5, 6)
