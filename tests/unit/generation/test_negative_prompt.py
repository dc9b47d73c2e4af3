"""A class in the negative prompt becomes rare among the images, as the embedded CLIP reads them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sarhpc.captioning.captioners.clip import ClipScorer, load_clip
from sarhpc.evaluation.text_config import LAND_COVER
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.model import load_pipeline
from sarhpc.generation.plan import plan_generation, shard_requests
from sarhpc.generation.sampler import sample_images
from sarhpc.stages.inputs.class_gate import OneByOne
from sarhpc.stages.inputs.paths import model_folder

pytestmark = pytest.mark.slow

MODEL = Path(model_folder("embedded:sar"))
TOKEN = "A SAR image of"


def sampled(cfg: GenerateConfig, negatives: list[str]) -> list[NDArray[np.uint8]]:
    """The same requests under each negative prompt, as gray codes (N, H, W)."""
    pipeline = load_pipeline(MODEL, cfg, "cpu")
    [inputs] = plan_generation(cfg)
    requests = shard_requests(inputs)
    found = []
    for negative in negatives:
        settings = dataclasses.replace(cfg, negative_prompt=negative)
        batches = [requests[n : n + cfg.batch] for n in range(0, len(requests), cfg.batch)]
        images = [sample_images(pipeline, batch, settings, cfg.batch, 1) for batch in batches]
        found.append(np.round(np.concatenate(images).mean(axis=3) * 255).astype(np.uint8))
    return found


def is_read_as(images: NDArray[np.uint8], name: str) -> NDArray[np.bool_]:
    """Whether `embedded:clip` reads each image as the class `name`."""
    clip = load_clip(model_folder("embedded:clip"), "cpu", "float32")
    seer = OneByOne(ClipScorer(clip, name="clip", revision=""))
    means = np.stack(
        [seer.read([f"{TOKEN} {text}" for text in texts]).mean(0) for texts in LAND_COVER.values()]
    )
    classes = means / np.linalg.norm(means, axis=1, keepdims=True)
    similarity = np.stack([seer.see(image, None) for image in images]) @ classes.T
    return np.asarray(similarity.argmax(axis=1) == list(LAND_COVER).index(name))


def fall(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[float, float]:
    """By how much the share falls, and the lower end of its 95 % interval over the images."""
    change = before.astype(float) - after.astype(float)
    draws = np.random.default_rng(0).integers(0, len(change), (2000, len(change)))
    return float(change.mean()), float(np.quantile(change[draws].mean(axis=1), 0.025))


def settings(images: int, steps: int) -> GenerateConfig:
    # No class in the prompt: what the images show is left to noise and negative prompt.
    return GenerateConfig(
        prompts=[TOKEN],
        prompt_template="{prompt}",
        images=images,
        steps=steps,
        guidance=3.0,
        batch=8,
    )


def test_the_named_class_becomes_rare_beyond_the_interval() -> None:
    plain, without = sampled(settings(16, 5), ["", f"{TOKEN} calm water"])
    before, after = is_read_as(plain, "water"), is_read_as(without, "water")
    falls, low = fall(before, after)
    print(f"water: {before.mean():.2f} of images, {after.mean():.2f} without; low {low:.2f}")
    assert falls > 0
    assert low > 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "text"), [("water", "calm water"), ("forest", "a dense forest"), ("field", "a field")]
)
def test_the_named_class_becomes_rare_at_more_steps(name: str, text: str) -> None:
    plain, without = sampled(settings(48, 25), ["", f"{TOKEN} {text}"])
    before, after = is_read_as(plain, name), is_read_as(without, name)
    falls, low = fall(before, after)
    print(f"{name}: {before.mean():.2f} of images, {after.mean():.2f} without; low {low:.2f}")
    assert low > 0, falls
