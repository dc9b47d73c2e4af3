"""Prompts of a shard: encoded once, in one batch shape, with bounded memory and the same bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sarhpc.generation import embeddings
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.embeddings import TextEmbeddings
from sarhpc.generation.image_shard import Provenance, generate_shard
from sarhpc.generation.model import load_pipeline
from sarhpc.generation.plan import plan_generation
from sarhpc.generation.schedules import SCHEDULERS
from sarhpc.shards.sample import Sample

pytestmark = pytest.mark.slow


def made(pipeline: Any, **changes: Any) -> tuple[list[Sample], list[tuple[int, ...]]]:
    """The samples of a shard, and the shape of each batch that the text encoder got."""
    settings = {"prompts": ["a river", "a town", "a road"], "images": 12, "steps": 1, "batch": 2}
    cfg = GenerateConfig(**{**settings, **changes})
    shapes: list[tuple[int, ...]] = []

    def look(module: Any, positional: Any, named: Any) -> None:
        ids = positional[0] if positional else named["input_ids"]
        shapes.append(tuple(ids.shape))

    hook = pipeline.text_encoder.register_forward_pre_hook(look, with_kwargs=True)
    try:
        [inputs] = plan_generation(cfg)
        shard = generate_shard(0, inputs, cfg, pipeline, Provenance("m", "c"))
        return list(shard.samples), shapes
    finally:
        hook.remove()


def test_each_prompt_is_encoded_once_and_in_batches_of_the_plan(pipeline: Any) -> None:
    samples, shapes = made(pipeline)
    assert len(samples) == 12
    assert set(shapes) == {(2, 77)}
    assert len(shapes) == 3, "two prompts and the negative one, then the third prompt"


def test_without_guidance_no_negative_prompt_is_encoded(pipeline: Any) -> None:
    _, shapes = made(pipeline, guidance=1.0)
    assert len(shapes) == 2


def test_prompts_that_were_dropped_are_encoded_again_to_the_same_bits(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, few = made(pipeline)
    monkeypatch.setattr(embeddings, "MOST_KEPT", 1)
    again, many = made(pipeline)
    assert again == samples
    assert len(many) > len(few)


def test_at_most_so_many_prompts_are_kept(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "MOST_KEPT", 4)
    texts = TextEmbeddings(pipeline, 2)
    for number in range(20):
        [found] = texts.of([f"town {number}"])
        assert found.hidden._base is None, "a view keeps its whole batch"
        assert len(texts._kept) <= 4


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_timesteps_stay_on_the_cpu_where_indexing_by_them_waits_for_nothing(
    model_folder: Any, scheduler: str
) -> None:
    pipeline = load_pipeline(model_folder, GenerateConfig(scheduler=scheduler), "cpu")
    pipeline.scheduler.set_timesteps(3, device=torch.device("meta"))
    assert pipeline.scheduler.timesteps.device.type == "cpu"
