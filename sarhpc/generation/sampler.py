"""Sampling a planned shard; an image does not depend on its batch, worker, order or restarts.

Each image has its own generator. On one machine type its bits then depend on the batch shape and
the thread count only, so the plan fixes both, and the last batch is padded with repeated requests
whose images are dropped.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpc.errors import IncompleteError
from sarhpc import __version__
from sarhpc.diffusion.conditioning import tokens_cut
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.model import Pipeline, first_text_encoder, require_match
from sarhpc.generation.pixels import pixel_members, pixel_metadata
from sarhpc.generation.plan import ImageRequest, shard_requests
from sarhpc.generation.steering import SteeringLayer, SteeringLayers, steering_facts
from sarhpc.shards.images import encode_rgb8
from sarhpc.shards.sample import SAMPLE_SCHEMA, Sample, encode_json, sample_key


class GenerationStoppedError(IncompleteError):
    """A stop was requested between two batches; the shard was abandoned and not published."""


@dataclass(frozen=True)
class GeneratedShard:
    """Samples of a shard, generated lazily, and the number of rejected images by reason.

    `rejected` is complete when `samples` is exhausted.
    """

    samples: Iterator[Sample]
    rejected: dict[str, int]


@dataclass(frozen=True)
class Provenance:
    """Hashes of the model folder and of the run's configuration."""

    model_sha: str
    config_fingerprint: str


def generate_shard(
    shard: int,
    inputs: Mapping[str, Any],
    cfg: GenerateConfig,
    pipeline: Pipeline,
    provenance: Provenance,
    stop: Callable[[], bool] = lambda: False,
    layers: SteeringLayers | None = None,
    image_member: str = "sar.png",
    requests: Sequence[ImageRequest] | None = None,
) -> GeneratedShard:
    """The samples of planned shard `shard`, one batch in memory at a time.

    An image with non-finite pixels is rejected and counted as `not_finite`; its key is skipped.

    Args:
        shard: Number of the shard, the prefix of its keys.
        inputs: The shard's part of the plan (`plan.plan_generation`).
        cfg: Steps, guidance, size and so on.
        pipeline: The model, from `model.load_pipeline`.
        provenance: Hashes to write into each sample.
        stop: Called before each batch; true abandons the shard.
        layers: Conditioning layers for a model with a ControlNet.
        image_member: `sar.png`, gray, or `optic.png`, in colour and without SAR metadata.
        requests: The images of the shard where `inputs` only name them; null reads `inputs`.

    Raises:
        ConfigError: the pipeline was loaded for another configuration.
        GenerationStoppedError: while iterating, after `stop` returned true.
    """
    require_match(pipeline, cfg)
    rejected: dict[str, int] = {}
    shared = _shared_meta(inputs, cfg, pipeline, provenance)
    if image_member == "sar.png":
        shared |= pixel_metadata(inputs, cfg)
    asked = shard_requests(inputs) if requests is None else requests
    made = _images(shard, asked, inputs, cfg, pipeline, stop, layers)
    samples = _samples(shard, made, shared, image_member, rejected)
    return GeneratedShard(samples, rejected)


def _images(
    shard: int,
    asked: Sequence[ImageRequest],
    inputs: Mapping[str, Any],
    cfg: GenerateConfig,
    pipeline: Pipeline,
    stop: Callable[[], bool],
    layers: SteeringLayers | None,
) -> Iterator[tuple[ImageRequest, NDArray[np.float32], dict[str, Any]]]:
    """Each request of a shard, its image (H, W, 3) in [0, 1], and its own metadata."""
    requests = iter(asked)
    while batch := list(itertools.islice(requests, inputs["batch"])):
        if stop():
            raise GenerationStoppedError(
                f"stopped inside shard {shard:06d}, which was abandoned; resume generates it again."
            )
        steers = _steers(layers, batch, inputs)
        cut = tokens_cut(first_text_encoder(pipeline)[0], [request.prompt for request in batch])
        images = sample_images(pipeline, batch, cfg, inputs["batch"], inputs["threads"], steers)
        facts = _steering_facts(steers, cfg) or [{} for _ in batch]
        for request, image, own, tokens in zip(batch, images, facts, cut, strict=True):
            # Only for prompts that are too long: the bytes of the others do not change.
            own |= _row_facts(request) | ({"prompt_tokens_cut": tokens} if tokens else {})
            yield request, image, own


def _row_facts(request: ImageRequest) -> dict[str, Any]:
    """Metadata from the row of a prompt table; nothing for a prompt without one."""
    negative, labels = request.negative_prompt, request.labels
    own: dict[str, Any] = {} if negative is None else {"negative_prompt": negative}
    return own | ({"labels": dict(labels)} if labels else {})


def _samples(
    shard: int,
    made: Iterator[tuple[ImageRequest, NDArray[np.float32], dict[str, Any]]],
    shared: Mapping[str, Any],
    image_member: str,
    rejected: dict[str, int],
) -> Iterator[Sample]:
    for request, image, own in made:
        if np.isfinite(image).all():
            key = sample_key(shard, request.index)
            yield _sample(key, request, image, {**shared, **own}, image_member)
        else:
            rejected["not_finite"] = rejected.get("not_finite", 0) + 1


def sample_images(
    pipeline: Pipeline,
    requests: list[ImageRequest],
    cfg: GenerateConfig,
    batch: int,
    threads: int,
    steers: Sequence[SteeringLayer] = (),
) -> NDArray[np.float32]:
    """Images (len(requests), H, W, 3) in [0, 1], sampled in a batch of exactly `batch`.

    A model with a ControlNet takes one conditioning layer of `steers` for each request.
    """
    padded = requests + [requests[-1]] * (batch - len(requests))
    # Generators on the CPU: the same initial noise on every device.
    generators = [torch.Generator("cpu").manual_seed(request.seed) for request in padded]
    with _pinned_arithmetic(threads):
        result = pipeline(
            prompt=[request.prompt for request in padded],
            negative_prompt=[_negative(request, cfg) for request in padded],
            num_inference_steps=cfg.steps,
            guidance_scale=cfg.guidance,
            height=cfg.height_px,
            width=cfg.width_px,
            generator=generators,
            output_type="np",
            **_steering(steers, cfg, batch),
            **_rescaled(cfg),
        )
    images: NDArray[np.float32] = result.images[: len(requests)]
    return images


def _negative(request: ImageRequest, cfg: GenerateConfig) -> str:
    return cfg.negative_prompt if request.negative_prompt is None else request.negative_prompt


def _steers(
    layers: SteeringLayers | None, batch: list[ImageRequest], inputs: Mapping[str, Any]
) -> list[SteeringLayer]:
    """The conditioning layer of each image of a batch; empty without a ControlNet."""
    if layers is None:
        return []
    return [layers.load(inputs["first"] + request.index) for request in batch]


def _steering_facts(steers: Sequence[SteeringLayer], cfg: GenerateConfig) -> list[dict[str, Any]]:
    if cfg.steer is None:
        return []
    return [{"steered_by": steering_facts(steer, cfg.steer)} for steer in steers]


def _rescaled(cfg: GenerateConfig) -> dict[str, float]:
    """The setting if it is used: at its default it is not recorded, which keeps older bytes."""
    return {"guidance_rescale": cfg.guidance_rescale} if cfg.guidance_rescale else {}


def _steering(steers: Sequence[SteeringLayer], cfg: GenerateConfig, batch: int) -> dict[str, Any]:
    """The pipeline's arguments for the layers, padded like the requests."""
    if cfg.steer is None or not steers:
        return {}
    layers = [steer.layer for steer in steers]
    layers += layers[-1:] * (batch - len(layers))
    stacked = torch.from_numpy(np.stack(layers)).permute(0, 3, 1, 2)
    return {"image": stacked, "controlnet_conditioning_scale": cfg.steer.scale}


@contextlib.contextmanager
def _pinned_arithmetic(threads: int) -> Iterator[None]:
    """Fix the thread count and use deterministic convolutions inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            yield
    finally:
        torch.set_num_threads(before)


def _sample(
    key: str,
    request: ImageRequest,
    image: NDArray[np.float32],
    shared: Mapping[str, Any],
    image_member: str,
) -> Sample:
    if image_member == "sar.png":
        pictures = pixel_members(
            image, master="master_law" in shared, floor=shared.get("master_floor", 0.0)
        )
    else:
        pictures = {image_member: encode_rgb8(np.round(image * 255).astype(np.uint8))}
    meta = {
        **shared,
        "key": key,
        "prompt": request.prompt,
        "seed": request.seed,
        "channel_spread": round(float(np.ptp(image, axis=2).mean()), 6),
    }
    members = {
        **pictures,
        "txt": request.prompt.encode(),
        "meta.json": encode_json(meta),
    }
    return Sample(key, members)


def _shared_meta(
    inputs: Mapping[str, Any],
    cfg: GenerateConfig,
    pipeline: Pipeline,
    provenance: Provenance,
) -> dict[str, Any]:
    adapter = {"adapter_sha": inputs["adapter_sha"]} if "adapter_sha" in inputs else {}
    weight = {"adapter_weight": cfg.adapter_weight} if cfg.adapter_weight != 1.0 else {}
    return {
        **adapter,
        **weight,
        **_rescaled(cfg),
        "schema": SAMPLE_SCHEMA,
        "synthetic": True,
        "negative_prompt": cfg.negative_prompt,
        "steps": cfg.steps,
        "guidance": cfg.guidance,
        "scheduler": cfg.scheduler,
        "dtype": cfg.dtype,
        "batch": inputs["batch"],
        "threads": inputs["threads"],
        "model_sha": provenance.model_sha,
        "config_fingerprint": provenance.config_fingerprint,
        "generator": _generator_name(pipeline.device),
    }


def _generator_name(device: torch.device) -> str:
    """Software and device, on which the bits depend beside model and configuration."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    packages = " ".join(f"{name}-{version(name)}" for name in ("diffusers", "torch"))
    return f"sarhpc-{__version__} {packages} {kind}"
