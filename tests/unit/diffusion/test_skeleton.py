"""Shapes without weights are those of the published models and of a folder's own files."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.config import load
from hpc.errors import DataError
from sarhpc.diffusion.config import BundleConfig
from sarhpc.diffusion.families.family import ModelFamily
from sarhpc.diffusion.families.registry import FAMILIES
from sarhpc.diffusion.skeleton import skeleton_of

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.key)
def test_published_shapes_are_those_of_the_shipped_configurations(family: ModelFamily) -> None:
    file = REPOSITORY / "configs" / "bundles" / f"{family.key}.yaml"
    assert family.published == load(BundleConfig, file, [])


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("runwayml/stable-diffusion-v1-5", {"unet": 859_520_964, "text_encoder": 123_060_480}),
        (
            "/models/stable-diffusion-xl-base-1.0",
            {"unet": 2_567_463_684, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840},
        ),
    ],
)
def test_a_missing_base_has_the_published_parameter_counts(
    name: str, counts: dict[str, int]
) -> None:
    found = skeleton_of(Path(name))
    assert {
        part: sum(p.numel() for p in model.parameters()) for part, model in found.models.items()
    } == counts
    assert all(p.is_meta for model in found.models.values() for p in model.parameters())


def test_a_folder_has_its_own_shapes() -> None:
    found = skeleton_of(REPOSITORY / "sarhpc" / "embedded" / "base")
    assert found.models["unet"].config.sample_size == 16
    assert found.origin.endswith("embedded/base")


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no diffusers folder"):
        skeleton_of(tmp_path)
