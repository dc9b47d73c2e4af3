"""Images of other shards that an image of a corpus repeats are flagged in its row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hpc.errors import DataError
from sarhpc.corpus.duplicates import flagging
from sarhpc.corpus.rows import IMAGE_CODE
from sarhpc.measures.near_duplicates import ImageCode

RNG = np.random.default_rng(0)
SCENES = [RNG.rayleigh(60, (64, 64)).clip(0, 255).astype(np.uint8) for _ in range(6)]


def rows(*images: np.ndarray | None) -> Iterator[dict[str, Any]]:
    for number, image in enumerate(images):
        code = None if image is None else ImageCode.of(image).to_text()
        yield {"key": f"{number:011d}", "shard": f"{number // 2:06d}.tar", IMAGE_CODE: code}


def flagged(*images: np.ndarray | None, bits: int | None = 60, compared: int = 100) -> list[Any]:
    return [row.get("near_duplicate_of") for row in flagging(rows(*images), bits, compared)]


def test_copies_and_near_copies_name_the_first_image_that_they_repeat() -> None:
    noisy = (SCENES[1] + RNG.normal(0, 4, (64, 64))).clip(0, 255).astype(np.uint8)
    found = flagged(SCENES[0], SCENES[1], SCENES[0], noisy, SCENES[2], SCENES[0])
    assert found == [None, None, f"{0:011d}", f"{1:011d}", None, f"{0:011d}"]


def test_images_without_a_code_and_corpora_without_a_gate_are_left_as_they_are() -> None:
    assert flagged(SCENES[0], None, None, SCENES[0]) == [None, None, None, f"{0:011d}"]
    assert flagged(SCENES[0], SCENES[0], bits=None) == [None, None]


def test_only_the_first_images_are_compared_with() -> None:
    found = flagged(SCENES[0], SCENES[1], SCENES[2], SCENES[2], SCENES[1], compared=2)
    assert found == [None, None, None, None, f"{1:011d}"]


def test_a_damaged_code_is_an_error_with_its_sample() -> None:
    with pytest.raises(DataError, match=r"sample 7 of a\.tar has a damaged code"):
        list(flagging([{"key": "7", "shard": "a.tar", IMAGE_CODE: "ff"}], 3))
