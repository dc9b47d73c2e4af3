"""`make embedded` in one go, with every recipe cut down to a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import train_embedded
from omegaconf import OmegaConf
from transformers import BlipForConditionalGeneration

from sarhpc.diffusion.bundle import load_bundle

TILE = {
    "shard_samples": 16,
    "min_signal": 0.0,
    "split": {"fractions": [0.5, 0.5, 0.0], "cell_m": 60.0, "buffer_m": 0.0},
}
TRAIN = {"max_steps": 2, "global_batch": 4, "micro_batch": 4, "warmup_steps": 1,
         "validation_every_steps": 2, "validation_steps": 2}  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {
    "pool": {"scenes": 7, "size_px": 160},
    "vae": {"steps": 4, "encoder_steps": 2, "batch": 2, "final_crop_px": 64, "warmup": 1,
            "texture_start": 1, "texture_ramp": 1, "discriminator_start": 2},
    "bundle": {},
    "base": {"simulate": {"scenes": 8, "size_px": 256}, "tile": TILE, "train": TRAIN},
    "sar": {"tile": TILE, "train": TRAIN, "compare": {"images": 4},
            "generate": {"images": 8, "steps": 2, "batch": 4, "shard_samples": 4},
            "evaluate": {"tiles": 16, "bootstrap": 3, "orientation_steps": 0}},
    "blip": {"simulate": {"scenes": 8, "size_px": 256}, "tile": TILE,
             "caption_train": {"steps": 4, "val_every": 2, "val_images": 4, "eval_images": 4,
                               "warmup_steps": 1, "eval_beams": 1}},
    "clip": {"simulate": {"scenes": 8, "size_px": 256}, "tile": TILE,
             "clip_train": {"steps": 4, "batch": 8, "val_every": 2, "warmup_steps": 1,
                            "judge": {"among": 2}}},
}  # fmt: skip


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_step_of_the_recipe_follows_from_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    for name, changes in SMALL.items():
        text = (train_embedded.CONFIGS / f"{name}.yaml").read_text()
        recipe = OmegaConf.create(text.replace("build/embedded", str(tmp_path / "build")))
        OmegaConf.save(OmegaConf.merge(recipe, changes), recipes / f"{name}.yaml")
    monkeypatch.setattr(train_embedded, "CONFIGS", recipes)
    monkeypatch.setattr(train_embedded, "BUILD", tmp_path / "build")
    monkeypatch.setattr(train_embedded, "EMBEDDED", tmp_path / "embedded")

    train_embedded.main([])

    shipped = train_embedded.ROOT / "sarhpc" / "embedded"
    for name, prediction in (("base", "epsilon"), ("sar", "v_prediction")):
        made, known = (load_bundle(folder / name) for folder in (tmp_path / "embedded", shipped))
        assert made.scheduler.config.prediction_type == prediction
        shapes = [{key: value.shape for key, value in each.unet.state_dict().items()}
                  for each in (made, known)]  # fmt: skip
        assert shapes[0] == shapes[1]
    assert (tmp_path / "build" / "sar" / "report.html").is_file()
    assert BlipForConditionalGeneration.from_pretrained(tmp_path / "embedded" / "blip")
