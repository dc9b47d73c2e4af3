"""Tiles of noise, interference and a clipped converter are left out; those of ground are not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from array_scenes import array_reader, band_speckle
from tiled_archives import SMALL, archive_of, tiles_of

from sarhpc.tiling.screening import screen_tile

PX = 128
ALL = np.ones((PX, PX), np.bool_)


def speckle(seed=0, power=1.0):
    rng = np.random.default_rng(seed)
    field = rng.standard_normal((PX, PX)) + 1j * rng.standard_normal((PX, PX))
    return (field * np.sqrt(power / 2)).astype(np.complex64)


def screened(field, floor=None, complex_too=True):
    return screen_tile(np.abs(field), ALL, field if complex_too else None, floor)


def test_pure_noise_is_left_out_and_a_signal_as_strong_as_it_is_not():
    assert screened(speckle(power=1e-3), floor=-30.0) == "noise"
    assert screened(speckle(power=2e-3), floor=-30.0) is None
    assert screened(speckle(power=1e-3)) is None, "without a floor nothing is known"


@pytest.mark.parametrize("axis", [0, 1])
def test_a_stripe_over_the_whole_tile_is_interference(axis):
    field = speckle()
    stripe = np.sqrt(20) * speckle(1)[:3]
    if axis == 0:
        field[40:43] += stripe
    else:
        field[:, 40:43] += stripe.T
    assert screened(field, complex_too=False) == "interference"


def test_a_tone_in_the_spectrum_is_interference():
    field = speckle()
    field += np.exp(2j * np.pi * 0.17 * np.arange(PX))[None] * 1.0
    assert screened(field) == "interference"


def test_a_clipped_converter_is_left_out():
    amplitude = np.minimum(np.abs(speckle()), np.float32(1.9))
    assert screen_tile(amplitude, ALL, None, None) == "clipped"


@pytest.mark.parametrize("seed", range(4))
def test_ground_passes(seed):
    rng = np.random.default_rng(seed)
    field = speckle(seed) * np.exp(rng.standard_normal((1, 1)))
    # Point targets, a wall along half of the tile, an edge between fields, a wide bright band.
    for row, col in rng.integers(4, PX - 4, (6, 2)):
        field[row, col] += 30
    field[60:62, :64] *= 8
    field[:, 90:] *= 3
    field[100:, :] *= 4
    assert screened(field) is None
    assert screened(field, complex_too=False) is None


def test_screening_is_asked_for_and_counted():
    field = band_speckle((256, 256), 0.8, (0.0, 0.0))
    field[40:43] += 40 * np.abs(field).mean()
    archive = archive_of(a=array_reader(field))
    cfg = dataclasses.replace(SMALL, pixel_m=None)
    _, before = tiles_of(archive, cfg)
    _, after = tiles_of(archive, dataclasses.replace(cfg, screen=True))
    assert before == {}
    assert after["interference"] >= 1
