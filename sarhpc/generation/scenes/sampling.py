"""Scenes sampled one at a time by a pipeline that makes tiles."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.embeddings import TextEmbeddings
from sarhpc.generation.finishing import SampledImage
from sarhpc.generation.model import Pipeline, backbone_of
from sarhpc.generation.pixels import planned_contract
from sarhpc.generation.plan import ImageRequest, full_prompt
from sarhpc.generation.sampler import pinned_arithmetic, sampled_batch
from sarhpc.generation.scenes.checks import require_layers, require_window
from sarhpc.generation.scenes.config import SceneConfig
from sarhpc.generation.scenes.decoding import decoding_in_parts
from sarhpc.generation.scenes.denoising import Regions, WindowedNetwork
from sarhpc.generation.scenes.layout import LAYOUT_SHA, on_latent, read_layout, require_planned
from sarhpc.generation.scenes.memory import require_memory, scene_memory
from sarhpc.generation.scenes.seams import joins_of, seam_facts
from sarhpc.generation.scenes.windows import Size
from sarhpc.generation.steering import LayerSource

SCENE = "scene"
"""Entry of `meta.json`."""


def images_at_once(inputs: Mapping[str, Any], cfg: GenerateConfig) -> int:
    """Images of a batch: scenes are made one at a time, their windows in batches."""
    return inputs["batch"] if cfg.scene is None else 1


def require_scene(cfg: GenerateConfig, pipeline: Pipeline) -> None:
    """Raise ConfigError unless the model can make the scenes here; of no effect without `scene`.

    Raises:
        ConfigError: its windows are larger than the scene.
        SceneMemoryError: the memory does not suffice.
    """
    import torch

    if cfg.scene is None:
        return
    scale = pipeline.vae_scale_factor
    sides = cfg.scene.rows_px, cfg.scene.columns_px
    for window, side in zip(_window(cfg, pipeline), sides, strict=True):
        require_window(window * scale, side, cfg.SECTION)
    device = pipeline.device
    on_gpu = device.type == "cuda"
    needed = scene_memory(
        cfg.scene, pipeline.vae.config.block_out_channels, scale, pipeline.vae.dtype.itemsize
    )
    there = torch.cuda.get_device_properties(device).total_memory if on_gpu else None
    require_memory(cfg.scene, needed, f"{cfg.SECTION}.scene", there)


def sampled_scenes(
    requests: Sequence[ImageRequest],
    inputs: Mapping[str, Any],
    cfg: GenerateConfig,
    pipeline: Pipeline,
    layers: LayerSource | None,
    embeddings: TextEmbeddings,
    go_on: Callable[[], None] = lambda: None,
) -> list[SampledImage]:
    """The scenes of some requests, one after the other, each with its own metadata.

    The bits of a scene depend on its request, model, windows per call and threads only. `go_on` is
    called before each evaluation of the network, and may raise.
    """
    return [
        _sampled_scene(request, inputs, cfg, pipeline, layers, embeddings, go_on)
        for request in requests
    ]


def _sampled_scene(
    request: ImageRequest,
    inputs: Mapping[str, Any],
    cfg: GenerateConfig,
    pipeline: Pipeline,
    layers: LayerSource | None,
    embeddings: TextEmbeddings,
    go_on: Callable[[], None],
) -> SampledImage:
    scene = cfg.scene
    assert scene is not None
    if layers is not None:
        require_layers(scene, layers.load(inputs["first"] + request.index))
    whole = dataclasses.replace(cfg, height_px=scene.rows_px, width_px=scene.columns_px)
    size = _latent_size(scene, pipeline)
    regions, about_layout = _regions(scene, cfg, inputs, size, embeddings)
    side = _window(cfg, pipeline)
    network = WindowedNetwork(
        pipeline, side, request.seed, inputs["batch"], regions=regions, go_on=go_on
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(network.in_place())
        stack.enter_context(decoding_in_parts(pipeline, scene.decode_px))
        [made] = sampled_batch(
            [request], {**inputs, "batch": 1}, whole, pipeline, layers, embeddings
        )
    contract = planned_contract(inputs)
    joins = joins_of(size, side, network.offset, pipeline.vae_scale_factor)
    facts = {
        "window_px": [latent * pipeline.vae_scale_factor for latent in side],
        "decode_px": scene.decode_px,
        # Every window is drawn under the same prompt, wherever it lies along range.
        "incidence_varies": False,
        "seams": seam_facts(made.image, None if contract is None else contract.law, joins),
        **about_layout,
    }
    return dataclasses.replace(made, facts={**made.facts, SCENE: facts})


def _latent_size(scene: SceneConfig, pipeline: Pipeline) -> Size:
    scale = pipeline.vae_scale_factor
    return scene.rows_px // scale, scene.columns_px // scale


def _window(cfg: GenerateConfig, pipeline: Pipeline) -> Size:
    """Rows and columns of a window, latent px: of the tiles that the model was trained on."""
    native, scale = int(backbone_of(pipeline).config.sample_size), pipeline.vae_scale_factor
    rows, columns = (native if px is None else px // scale for px in (cfg.height_px, cfg.width_px))
    return rows, columns


def _regions(
    scene: SceneConfig,
    cfg: GenerateConfig,
    inputs: Mapping[str, Any],
    size: Size,
    embeddings: TextEmbeddings,
) -> tuple[Regions | None, dict[str, Any]]:
    """Prompts by latent pixel, and what `meta.json` says of them; nothing without a layout."""
    if scene.layout is None:
        return None, {}
    digest = require_planned(scene, inputs.get(LAYOUT_SHA))
    labels = on_latent(read_layout(scene, f"{cfg.SECTION}.scene"), size)
    prompts = [full_prompt(cfg, text) for text in scene.regions]
    shares = [round(float((labels == value).mean()), 6) for value in range(len(prompts) + 1)]
    facts = {LAYOUT_SHA: digest, "regions": prompts, "region_shares": shares}
    with pinned_arithmetic(inputs["threads"]):
        return Regions(labels, embeddings.of(prompts)), facts
