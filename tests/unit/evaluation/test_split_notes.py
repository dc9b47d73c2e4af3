"""What an evaluation says of the splits of real images."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_sets_on_disk import speckle_codes
from PIL import Image

from sarhpc.evaluation.comparison_plan import plan_comparison
from sarhpc.evaluation.config import EvaluateConfig
from sarhpc.evaluation.image_sets import list_images


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("train/tank", "test/tank"), "Folders of real images name splits: test, train."),
        (("tank", "truck"), "Real tiles name no split"),
    ],
)
def test_folders_that_name_splits_are_told(
    tmp_path: Path, folders: tuple[str, str], said: str
) -> None:
    for number, folder in enumerate((*folders, "../synthetic")):
        place = tmp_path / "real" / folder
        place.mkdir(parents=True)
        for at, codes in enumerate(speckle_codes(number, 12)):
            Image.fromarray(codes).save(place / f"{at}.png")
    real, synthetic = (list_images(tmp_path / name) for name in ("real", "synthetic"))
    notes = plan_comparison(real, {"synthetic": synthetic}, EvaluateConfig()).notes
    assert said in " ".join(notes)
