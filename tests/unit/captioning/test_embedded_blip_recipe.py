from __future__ import annotations

from pathlib import Path

import pytest
from caption_tiles import GROUNDS
from omegaconf import OmegaConf

from sarhpc.captioning.captioners.build import new_blip
from sarhpc.captioning.config import CaptionTrainConfig
from sarhpc.captioning.tuning.tokenizer import train_bert_tokenizer

RECIPE = Path(__file__).resolve().parents[3] / "configs" / "embedded" / "blip.yaml"


@pytest.fixture(scope="module")
def recipe() -> CaptionTrainConfig:
    told = OmegaConf.load(RECIPE)["caption_train"]
    built = OmegaConf.to_object(OmegaConf.merge(CaptionTrainConfig, told))
    assert isinstance(built, CaptionTrainConfig)
    return built


def test_the_embedded_blip_starts_from_nothing_and_fits_in_eight_megabytes(
    recipe: CaptionTrainConfig,
) -> None:
    assert recipe.base_model is None
    assert recipe.save_dtype == "float16"
    blip = new_blip(recipe.new, train_bert_tokenizer(GROUNDS, recipe.new.vocabulary))
    parameters = sum(p.numel() for p in blip.model.parameters())
    room = (recipe.new.vocabulary - len(blip.tokenizer)) * recipe.new.text_width
    assert 2 * (parameters + room) < 8e6
    assert parameters < 4e6
