"""Sampling batches of images; an image does not depend on its batch, worker, order or restarts.

Each image has its own generator. On one machine type its bits then depend on the batch shape and
the thread count only, so the plan fixes both, and the last batch is padded with repeated requests
whose images are dropped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sarhpc.diffusion.unblocked_sampling import starting_noise
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.controls.several import steering_arguments, steering_facts
from sarhpc.generation.embeddings import TextEmbeddings, embedding_arguments
from sarhpc.generation.finishing import SampledImage
from sarhpc.generation.model import Pipeline
from sarhpc.generation.plan import ImageRequest
from sarhpc.generation.sources.latents import image_arguments
from sarhpc.generation.sources.mean_power import kept_mean_power
from sarhpc.generation.sources.source_images import SourceImage, SourceImages, source_facts
from sarhpc.generation.steering import LayerSource, SteeringLayer


def sampled_batch(
    requests: Sequence[ImageRequest],
    inputs: Mapping[str, Any],
    cfg: GenerateConfig,
    pipeline: Pipeline,
    layers: LayerSource | None,
    embeddings: TextEmbeddings,
    sources: SourceImages | None = None,
) -> list[SampledImage]:
    """The images of a batch of a planned shard, each with its own metadata."""
    steers = _steers(layers, requests, inputs)
    begun = _begun_with(sources, requests, inputs)
    images = sample_images(
        pipeline, requests, cfg, inputs["batch"], inputs["threads"], steers, embeddings, begun
    )
    made = kept_mean_power(images, begun, inputs, cfg)
    cut = [embedding.cut for embedding in embeddings.of([r.prompt for r in requests])]
    facts = _steering_facts(steers, cfg) or [{} for _ in requests]
    origins = _source_facts(begun, cfg) or [{} for _ in requests]
    return [
        # Only for prompts that are too long: the bytes of the others do not change.
        SampledImage(
            request,
            image,
            own | origin | _row_facts(request) | ({"prompt_tokens_cut": tokens} if tokens else {}),
        )
        for request, image, own, origin, tokens in zip(
            requests, made, facts, origins, cut, strict=True
        )
    ]


def _row_facts(request: ImageRequest) -> dict[str, Any]:
    """Metadata from the row of a prompt table; nothing for a prompt without one."""
    negative, labels = request.negative_prompt, request.labels
    own: dict[str, Any] = {} if negative is None else {"negative_prompt": negative}
    return own | ({"labels": dict(labels)} if labels else {})


def sample_images(
    pipeline: Pipeline,
    requests: Sequence[ImageRequest],
    cfg: GenerateConfig,
    batch: int,
    threads: int,
    steers: Sequence[SteeringLayer] = (),
    embeddings: TextEmbeddings | None = None,
    begun: Sequence[SourceImage] = (),
) -> NDArray[np.float32]:
    """Images (len(requests), H, W, 3) in [0, 1], sampled in a batch of exactly `batch`.

    A model with a ControlNet takes one conditioning layer of `steers` for each request, image to
    image one of `begun`. Prompts are encoded by `embeddings`, which keeps them from batch to batch.
    """
    embeddings = embeddings or TextEmbeddings(pipeline, batch)
    padded = [*requests] + [requests[-1]] * (batch - len(requests))
    # Generators on the CPU: the same initial noise on every device.
    generators = [torch.Generator("cpu").manual_seed(request.seed) for request in padded]
    with pinned_arithmetic(threads):
        result = pipeline(
            **_texts(padded, cfg, embeddings),
            num_inference_steps=cfg.steps,
            guidance_scale=cfg.guidance,
            generator=generators,
            output_type="np",
            **_beginning(pipeline, generators, steers, begun, cfg),
            **rescaled(cfg),
        )
    images: NDArray[np.float32] = result.images[: len(requests)]
    return images


def _beginning(
    pipeline: Pipeline,
    generators: Sequence[torch.Generator],
    steers: Sequence[SteeringLayer],
    begun: Sequence[SourceImage],
    cfg: GenerateConfig,
) -> dict[str, Any]:
    """The pipeline's arguments for where it begins, and for the layers that steer it."""
    batch = len(generators)
    steering = _steering(pipeline, steers, cfg, batch)
    if begun:
        return image_arguments(pipeline, begun, cfg, batch, steering)
    size = (cfg.height_px, cfg.width_px)
    return {
        "height": cfg.height_px,
        "width": cfg.width_px,
        "latents": starting_noise(pipeline, generators, size),
        **steering,
    }


def _begun_with(
    sources: SourceImages | None, batch: Sequence[ImageRequest], inputs: Mapping[str, Any]
) -> list[SourceImage]:
    """The image that each image of a batch begins with; empty for text to image."""
    if sources is None:
        return []
    return [sources.load(inputs["first"] + request.index) for request in batch]


def _texts(
    requests: Sequence[ImageRequest], cfg: GenerateConfig, embeddings: TextEmbeddings
) -> dict[str, Any]:
    """The pipeline's arguments for the prompts; negative ones where there is guidance."""
    prompts = [request.prompt for request in requests]
    negatives = [_negative(request, cfg) for request in requests] if cfg.guidance > 1 else []
    found = embeddings.of([*prompts, *negatives])
    return embedding_arguments(found[: len(prompts)], found[len(prompts) :])


def _negative(request: ImageRequest, cfg: GenerateConfig) -> str:
    return cfg.negative_prompt if request.negative_prompt is None else request.negative_prompt


def _steers(
    layers: LayerSource | None, batch: Sequence[ImageRequest], inputs: Mapping[str, Any]
) -> list[SteeringLayer]:
    """The conditioning layer of each image of a batch; empty without a ControlNet."""
    if layers is None:
        return []
    return [layers.load(inputs["first"] + request.index) for request in batch]


def _steering_facts(steers: Sequence[SteeringLayer], cfg: GenerateConfig) -> list[dict[str, Any]]:
    if cfg.steer is None:
        return []
    return [{"steered_by": steering_facts(steer, cfg.steer)} for steer in steers]


def _source_facts(begun: Sequence[SourceImage], cfg: GenerateConfig) -> list[dict[str, Any]]:
    if cfg.image_to_image is None:
        return []
    return [
        {"image_to_image": source_facts(image, cfg.image_to_image, cfg.steps)} for image in begun
    ]


def rescaled(cfg: GenerateConfig) -> dict[str, float]:
    """The setting if it is used: at its default it is not recorded, which keeps older bytes."""
    return {"guidance_rescale": cfg.guidance_rescale} if cfg.guidance_rescale else {}


def _steering(
    pipeline: Pipeline, steers: Sequence[SteeringLayer], cfg: GenerateConfig, batch: int
) -> dict[str, Any]:
    """The pipeline's arguments for the layers, padded like the requests."""
    if cfg.steer is None or not steers:
        return {}
    return steering_arguments(steers, cfg.steer, batch, pipeline.device)


@contextlib.contextmanager
def pinned_arithmetic(threads: int) -> Iterator[None]:
    """Fix the thread count and use deterministic convolutions inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            yield
    finally:
        torch.set_num_threads(before)
