"""A model is recognised as one of the families, and a family's facts are those of its folders."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import diffusers
import pytest
import transformers

from sarhpc.diffusion.config import BundleConfig, TextShape
from sarhpc.diffusion.families.family import ModelFamily
from sarhpc.diffusion.families.registry import (
    FAMILIES,
    family_of,
    family_of_pipeline,
    family_of_shapes,
    is_text_encoder,
)
from sarhpc.diffusion.families.sd15 import SD15
from sarhpc.diffusion.families.sdxl import SDXL


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.key)
def test_classes_exist_in_the_libraries(family: ModelFamily) -> None:
    for name in (family.pipeline, family.control_pipeline):
        assert issubclass(getattr(diffusers, name), diffusers.DiffusionPipeline)
        assert family_of_pipeline(name) is family
    assert issubclass(getattr(diffusers, family.backbone_class), diffusers.ModelMixin)
    for encoder in family.encoders:
        assert issubclass(getattr(transformers, encoder.model), transformers.PreTrainedModel)
        assert is_text_encoder(encoder.folder)
    assert not is_text_encoder(family.backbone)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.key)
def test_a_folder_is_recognised_by_its_index_and_else_by_its_encoders(
    family: ModelFamily, tmp_path: Path
) -> None:
    for part in family.components:
        (tmp_path / part).mkdir()
    assert family_of(tmp_path) is family
    index = tmp_path / "model_index.json"
    for text in ("torn", "{}", '{"_class_name": "FluxPipeline"}', "[]"):
        index.write_text(text)
        assert family_of(tmp_path) is family
    other = next(other for other in FAMILIES if other is not family)
    index.write_text(json.dumps({"_class_name": other.pipeline}))
    assert family_of(tmp_path) is other


def test_a_missing_folder_is_recognised_by_its_name(tmp_path: Path) -> None:
    assert family_of(tmp_path / "stable-diffusion-XL-base-1.0") is SDXL
    assert family_of(tmp_path / "stable-diffusion-v1-5") is SD15


def test_two_text_shapes_are_sdxl() -> None:
    assert family_of_shapes(BundleConfig()) is SD15
    assert family_of_shapes(BundleConfig(text_2=TextShape())) is SDXL
    assert family_of_pipeline("FluxPipeline") is None


def test_the_facts_of_a_family_load_no_library() -> None:
    code = (
        "import sys, sarhpc.diffusion.families.registry\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
