"""An SDXL folder generates as an SD 1.5 folder does: named by its index, same on every restart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import StableDiffusionXLPipeline

from hpc.errors import DataError
from sarhpc.diffusion.bundle import new_bundle, save_bundle
from sarhpc.diffusion.config import AutoencoderShape, BundleConfig, TextShape, UNetShape
from sarhpc.diffusion.tokenizer import train_clip_tokenizer
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.image_shard import Provenance, generate_shard
from sarhpc.generation.model import load_pipeline
from sarhpc.generation.plan import plan_generation
from sarhpc.shards.images import decode_gray8
from sarhpc.shards.sample import Sample
from sarhpc.shards.schema import validate_sample

PROMPTS = ["a river", "a forest"]


@pytest.fixture(scope="module")
def xl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("xl")
    tokenizer = train_clip_tokenizer(PROMPTS * 2, 530, folder / "tokenizer", max_length=16)
    shapes = BundleConfig(
        unet=UNetShape(4, [8, 16], [False, True], norm_groups=4, size_embedding=8),
        text=TextShape(hidden=16, layers=2, heads=2, intermediate=32, positions=16),
        text_2=TextShape(24, layers=2, heads=2, intermediate=32, positions=16, activation="gelu"),
        vae=AutoencoderShape([4, 4, 8, 8], norm_groups=4, sample_size=32),
    )
    save_bundle(new_bundle(shapes, tokenizer), folder / "model")
    return folder / "model"


def generate(pipeline: Any, cfg: GenerateConfig) -> list[Sample]:
    provenance = Provenance("m" * 64, "c" * 64)
    return [
        sample
        for number, inputs in enumerate(plan_generation(cfg))
        for sample in generate_shard(number, inputs, cfg, pipeline, provenance).samples
    ]


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpmsolver", "pndm"])
def test_an_xl_folder_generates_whole_samples_twice_the_same(
    xl_folder: Path, scheduler: str
) -> None:
    cfg = GenerateConfig(prompts=PROMPTS, images=3, steps=2, batch=2, scheduler=scheduler)
    first, again = (generate(load_pipeline(xl_folder, cfg, "cpu"), cfg) for _ in range(2))
    assert len(first) == 3
    for sample, other in zip(first, again, strict=True):
        validate_sample(sample)
        assert sample.members == other.members
        assert decode_gray8(sample.members["sar.png"]).shape == (32, 32)
    assert not np.array_equal(*(decode_gray8(s.members["sar.png"]) for s in first[:2]))


def test_an_xl_folder_is_loaded_without_a_watermark_and_with_short_prompts(
    xl_folder: Path,
) -> None:
    pipeline = load_pipeline(xl_folder, GenerateConfig(), "cpu")
    assert isinstance(pipeline, StableDiffusionXLPipeline)
    assert pipeline.watermark is None
    assert pipeline.tokenizer.model_max_length == pipeline.tokenizer_2.model_max_length == 16


@pytest.mark.parametrize("text", [json.dumps({"_class_name": "FluxPipeline"}), "[]", "{"])
def test_an_index_of_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model_index.json").write_text(text)
    with pytest.raises(DataError):
        load_pipeline(tmp_path, GenerateConfig(), "cpu")
