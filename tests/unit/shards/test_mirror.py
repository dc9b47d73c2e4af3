"""Captions of flipped tiles tell the truth, or the tile is not flipped."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from hpc.job.agreement import SingleProcess
from sarhpc.shards.loader import Cursor
from sarhpc.shards.mirror import mirrored
from sarhpc.training.config import TrainConfig
from sarhpc.training.denoising.data import feed, flips


@pytest.mark.parametrize(
    ("caption", "other"),
    [
        ("a lake in the upper left corner", "a lake in the lower left corner"),
        ("Top right: a town", "Bottom right: a town"),
        (
            "fields at the top and forest at the bottom",
            "fields at the bottom and forest at the top",
        ),
        ("the top of the image is water", "the bottom of the image is water"),
        ("a road below a forest", "a road above a forest"),
        ("a river on the left of a town", "a river on the left of a town"),
        ("a village seen from above", "a village seen from above"),
        ("dense forest", "dense forest"),
    ],
)
def test_words_for_rows_change_sides_and_back(caption: str, other: str) -> None:
    assert mirrored(caption) == other
    assert mirrored(other) == caption


@pytest.mark.parametrize(
    "caption",
    [
        "a road north of a lake",
        "the Western shore of a lake",
        "a chapel on top of a hill",
        "lower buildings around a square",
        "trees at the top of the hill",
        "forest at the top, lower buildings in the bottom half",
    ],
)
def test_a_caption_whose_mirror_image_is_not_sure_has_none(caption: str) -> None:
    assert mirrored(caption) is None


class Shores:
    """Tiles with water in the first row, half of them captioned in words that have no mirror."""

    def __len__(self) -> int:
        return 40

    def key(self, number: int) -> str:
        return f"{number:011d}"

    def load(self, number: int, image_member: str) -> tuple[NDArray[np.float32], str]:
        image = np.ones((8, 8, 3), np.float32)
        image[0] = -1
        return image, "water at the top" if number % 2 else "water in the north"


def test_a_flipped_tile_has_the_mirrored_caption_and_no_other_tile_is_flipped() -> None:
    cfg = TrainConfig(global_batch=40, azimuth_flip=True)
    batches = feed(cfg, Shores(), Cursor(), SingleProcess(0, 1))
    _, share = next(batches)
    batches.close()

    rows = zip(share.keys, share.images, share.captions, share.flipped, strict=True)
    for key, image, caption, flipped in rows:
        where = "bottom" if image[0, -1, 0] == -1 else "top"
        assert caption in (f"water at the {where}", "water in the north")
        assert flipped == (where == "bottom")
        assert flipped == (int(key) % 2 == 1 and flips(0, 0, key))
    assert 5 <= sum(share.flipped) <= 15
