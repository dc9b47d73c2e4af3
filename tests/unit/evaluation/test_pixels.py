"""Pixels that are measured: the range that an image has, and codes by the law of its picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from hpc.errors import DataError
from sarhpc.evaluation.image_sets import Image
from sarhpc.evaluation.pixels import amplitude_member, fault_of, measured_pixels
from sarhpc.evaluation.set_facts import AMPLITUDE, CODES
from sarhpc.measures.log_cumulants import log_cumulants
from sarhpc.shards.images import encode_array, encode_gray8
from sarhpc.shards.radiometry import (
    Normalisation,
    encode_levels,
    encode_log_master,
    encode_master,
    level_floor,
)

PX = (40, 40)
LINEAR = Normalisation("mu+3sigma", 1.0, 1.0, 4.0)
DB = Normalisation("db", 1.0, 1.0, 4.0, low=0.004)


def tile() -> np.ndarray:
    return np.random.default_rng(0).rayleigh(1.0, PX).astype(np.float32)


def image(members: Mapping[str, bytes], **meta: Any) -> Image:
    return Image("7", members, meta, "a.tar", 0)


@pytest.mark.parametrize("law", ["linear", "log"])
def test_a_master_is_measured_relative_to_code_255_of_its_picture(law: str) -> None:
    encode = encode_master if law == "linear" else encode_log_master
    codes, scale = encode(tile())
    meta = {"master_scale": scale, "normalisation": LINEAR.to_json()}
    if law == "log":
        meta |= {"master_law": "log", "master_step_db": 0.002}
    members = {"sar.png": encode_gray8(LINEAR.encode(tile())), "sar16.npy": encode_array(codes)}
    found = measured_pixels(image(members, **meta), AMPLITUDE, PX)
    np.testing.assert_allclose(found, tile() / 4.0, rtol=2e-4, atol=2 * scale)
    picture = measured_pixels(image(members, **meta), CODES, PX)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, LINEAR.encode(tile()))


@pytest.mark.parametrize("law", [LINEAR, DB, None])
def test_a_master_of_levels_is_measured_on_the_same_scale(law: Normalisation | None) -> None:
    truth = np.minimum(tile(), 4.0)
    levels = (law or LINEAR).levels(truth)
    members = {"sar16.npy": encode_array(encode_levels(levels))}
    meta = {"master_law": "level", "normalisation": None if law is None else law.to_json()}
    found = measured_pixels(image(members, **meta), AMPLITUDE, PX)
    np.testing.assert_allclose(found, truth / 4.0, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("law", [LINEAR, DB, None])
def test_a_master_of_before_floors_is_measured_as_one_with_a_floor(
    law: Normalisation | None,
) -> None:
    levels = np.zeros(PX, np.float32)
    levels[20:] = 0.5
    meta = {"master_law": "level", "normalisation": None if law is None else law.to_json()}
    least = []
    for floor in (0.0, level_floor("" if law is None else law.mode)):
        members = {"sar16.npy": encode_array(encode_levels(levels, floor or 0.0))}
        least.append(float(measured_pixels(image(members, **meta), AMPLITUDE, PX).min()))
    assert least[0] == pytest.approx(least[1], rel=0.01)
    assert least[0] == pytest.approx(DB.low / 4.0 if law is DB else 0.5 / 255, rel=0.01)


def test_a_few_pixels_that_a_decoder_clipped_do_not_decide_the_law_of_the_clutter() -> None:
    speckle = np.random.default_rng(3).rayleigh(0.1, (128, 128)).astype(np.float32)
    known = log_cumulants(speckle.astype(np.float64) ** 2).k3
    speckle[speckle < 0.006] = 0.0
    members = {"sar16.npy": encode_array(encode_levels(speckle))}
    found = measured_pixels(image(members, master_law="level"), AMPLITUDE, (128, 128))
    assert log_cumulants(np.square(found, dtype=np.float64)).k3 == pytest.approx(known, abs=0.6)


def test_codes_of_a_law_that_is_not_linear_are_decoded() -> None:
    members = {"sar.png": encode_gray8(DB.encode(tile()))}
    found = measured_pixels(image(members, normalisation=DB.to_json()), CODES, PX)
    np.testing.assert_allclose(found, np.minimum(tile(), 4.0) / 4.0, rtol=0.02, atol=0.004)


def test_arrays_are_divided_by_the_scale_of_the_comparison() -> None:
    field = (tile() * np.exp(1j)).astype(np.complex64)
    members = {"sar.npy": encode_array(field), "sar.png": b""}
    assert amplitude_member(members) == ["sar.npy"]
    found = measured_pixels(image(members), AMPLITUDE, PX, scale=2.0)
    np.testing.assert_allclose(found, tile() / 2.0, rtol=1e-5)
    [only] = [measured_pixels(image({"npy": encode_array(tile())}), CODES, PX, scale=4.0)]
    np.testing.assert_array_equal(only, np.rint(255 * np.clip(tile() / 4, 0, 1)))


def test_the_middle_is_taken() -> None:
    found = measured_pixels(image({"npy": encode_array(tile())}), AMPLITUDE, (8, 20))
    np.testing.assert_array_equal(found, tile()[16:24, 10:30])


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full(PX, "a"), "not numbers"),
        (np.zeros((3, *PX)), "3 x 40 x 40"),
        (np.zeros((20, 20)), "smaller than the 40 x 40"),
    ],
)
def test_what_is_no_image_is_named(array: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=r"image 7 of a\.tar") as caught:
        measured_pixels(image({"npy": encode_array(array)}), AMPLITUDE, PX)
    assert words in str(caught.value)


def test_faults_are_told_with_their_count() -> None:
    pixels = tile()
    assert fault_of(pixels) is None
    pixels[0, :3] = np.nan
    assert fault_of(pixels) == "3 of 1600 pixels are NaN or infinite"
    assert fault_of(-tile()) == "1600 pixels are negative: give linear amplitude, not dB"
    assert fault_of(np.full(PX, 3, np.uint8)) == "every pixel is 3"
