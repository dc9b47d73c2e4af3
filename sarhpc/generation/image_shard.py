"""The samples of a planned shard of images: sampled, judged, encoded."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpc.errors import IncompleteError
from sarhpc import __version__
from sarhpc.generation.adapters.chosen import adapter_facts
from sarhpc.generation.areas import area_facts
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.embeddings import TextEmbeddings
from sarhpc.generation.finishing import (
    Finish,
    FinishedImage,
    SampleBatch,
    SampledImage,
    Verdict,
    finished_in_order,
)
from sarhpc.generation.model import Pipeline, require_match
from sarhpc.generation.pixels import pixel_members, pixel_metadata
from sarhpc.generation.plan import ImageRequest, shard_requests
from sarhpc.generation.sampler import rescaled, sampled_batch
from sarhpc.generation.scenes.sampling import images_at_once, require_scene, sampled_scenes
from sarhpc.generation.schedules import schedule_facts
from sarhpc.generation.sources.source_images import SourceImages, require_sources
from sarhpc.generation.steering import LayerSource
from sarhpc.generation.sweeps.layouts import Layouts, Write
from sarhpc.shards.images import encode_rgb8
from sarhpc.shards.sample import SAMPLE_SCHEMA, Sample, encode_json, sample_key

NOT_FINITE = "not_finite"


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


def finite(sampled: SampledImage) -> Verdict:
    """Accepts every image whose pixels are finite numbers; refuses others without another try."""
    return Verdict() if np.isfinite(sampled.image).all() else Verdict(NOT_FINITE)


def generate_shard(
    shard: int,
    inputs: Mapping[str, Any],
    cfg: GenerateConfig,
    pipeline: Pipeline,
    provenance: Provenance,
    stop: Callable[[], bool] = lambda: False,
    layers: LayerSource | None = None,
    sources: SourceImages | None = None,
    image_member: str = "sar.png",
    requests: Sequence[ImageRequest] | None = None,
    judge: Callable[[SampledImage], Verdict] = finite,
    refused: Callable[[FinishedImage], None] = lambda image: None,
    admit: Callable[[FinishedImage], FinishedImage] = lambda image: image,
) -> GeneratedShard:
    """The samples of planned shard `shard`, a few batches in memory at a time.

    Batches are sampled in the thread that iterates; threads beside it judge and encode.

    Args:
        shard: Number of the shard, the prefix of its keys.
        inputs: The shard's part of the plan (`plan.plan_generation`).
        cfg: Steps, guidance, size and so on.
        pipeline: The model, from `model.load_pipeline`.
        provenance: Hashes to write into each sample.
        stop: Called before each batch, and each step of a scene; true abandons the shard.
        layers: Conditioning layers for a model with a ControlNet.
        sources: Images to begin with, for image to image.
        image_member: `sar.png`, gray, or `optic.png`, in colour and without SAR metadata.
        requests: The images of the shard where `inputs` only name them; null reads `inputs`.
        judge: Says of an image, in a thread beside the sampler, whether it enters the shard, and
            what to sample in its place. It depends on nothing but the image. In a sweep it is asked
            of what the model drew, not of what the sensor model makes of it.
        refused: Called with each refused image, in order, in the thread that iterates.
        admit: Called with each image that `judge` accepts, likewise: the image, or the image
            refused because of those before it.

    Raises:
        ConfigError: the pipeline was loaded for another configuration.
        GenerationStoppedError: while iterating, after `stop` returned true.
    """
    require_match(pipeline, cfg)
    require_sources(cfg, sources)
    require_scene(cfg, pipeline)
    draw = _draw(shard, inputs, cfg, pipeline, stop, layers, sources)
    write = _write(
        shard, _shared_meta(inputs, cfg, pipeline, provenance), inputs, cfg, image_member
    )
    sample: SampleBatch = draw
    finish: Finish = functools.partial(_finished, judge, area_facts(inputs, cfg), write)
    if cfg.sweep is not None:
        layouts = Layouts(cfg.sweep, inputs, cfg)
        sample = functools.partial(layouts.sampled, draw)
        finish = functools.partial(layouts.finished, judge, write)
    asked = shard_requests(inputs) if requests is None else requests
    images = finished_in_order(asked, sample, finish, images_at_once(inputs, cfg), admit)
    rejected: dict[str, int] = {}
    return GeneratedShard(_accepted(images, refused, rejected), rejected)


def _draw(
    shard: int,
    inputs: Mapping[str, Any],
    cfg: GenerateConfig,
    pipeline: Pipeline,
    stop: Callable[[], bool],
    layers: LayerSource | None,
    sources: SourceImages | None,
) -> SampleBatch:
    """What makes the images of a batch, unless a stop was requested."""
    embeddings = TextEmbeddings(pipeline, inputs["batch"])

    def go_on() -> None:
        """Raise GenerationStoppedError where a stop was requested."""
        if stop():
            raise GenerationStoppedError(
                f"stopped inside shard {shard:06d}, which was abandoned; resume generates it again."
            )

    def draw(batch: Sequence[ImageRequest]) -> list[SampledImage]:
        """The images of a batch."""
        go_on()
        if cfg.scene is not None:
            return sampled_scenes(batch, inputs, cfg, pipeline, layers, embeddings, go_on)
        return sampled_batch(batch, inputs, cfg, pipeline, layers, embeddings, sources)

    return draw


def _write(
    shard: int,
    shared: Mapping[str, Any],
    inputs: Mapping[str, Any],
    cfg: GenerateConfig,
    image_member: str,
) -> Write:
    """What makes the sample of an image, from its index, pixels and own entries of `meta.json`."""
    if image_member == "sar.png":
        shared = {**shared, **pixel_metadata(inputs, cfg)}

    def write(
        index: int, request: ImageRequest, image: NDArray[np.float32], facts: Mapping[str, Any]
    ) -> Sample:
        """The sample of an image."""
        key = sample_key(shard, index)
        return _sample(key, request, image, {**shared, **facts}, image_member)

    return write


def _accepted(
    images: Iterator[FinishedImage],
    refused: Callable[[FinishedImage], None],
    rejected: dict[str, int],
) -> Iterator[Sample]:
    for image in images:
        reason = image.verdict.reason
        if reason is not None:
            rejected[reason] = rejected.get(reason, 0) + 1
            refused(image)
        elif image.layout:
            yield from image.layout
        elif image.sample is not None:
            yield image.sample


def _finished(
    judge: Callable[[SampledImage], Verdict],
    areas: Callable[[NDArray[np.float32]], dict[str, Any]],
    write: Write,
    sampled: SampledImage,
) -> FinishedImage:
    """The image judged, with its sample, in which pixels that are no numbers are black."""
    request, image, verdict = sampled.request, sampled.image, judge(sampled)
    if not np.isfinite(image).all():
        image = np.clip(np.nan_to_num(image), 0, 1)
    facts = {**sampled.facts, **verdict.facts, **areas(image)}
    return FinishedImage(request, verdict, write(request.index, request, image, facts))


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
    control = {"control_sha": inputs["control_sha"]} if "control_sha" in inputs else {}
    return {
        **adapter_facts(inputs, cfg),
        **control,
        **schedule_facts(cfg),
        **rescaled(cfg),
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
