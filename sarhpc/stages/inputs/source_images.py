"""The images that a corpus of a run begins with: found, described, surveyed for its plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.errors import ConfigError, DataError
from hpc.store.rundir import RunDir
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.sources.config import ImageToImageConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.prompts import held_out_splits, sample_shards

if TYPE_CHECKING:
    from sarhpc.generation.sources.source_images import SourceImages
    from sarhpc.shards.contract import PixelContract

SOURCES_SHA = "sources_sha256"
"""Entry of the inputs of a shard: digest of the images that it begins with."""


def source_images(
    run: RunDir,
    config: RunConfig,
    cfg: ImageToImageConfig,
    contract: PixelContract | None = None,
) -> SourceImages:
    """The images that image to image of a run begins with, read under `contract`.

    Raises:
        DataError: there are none, or a shard of them is damaged.
    """
    from sarhpc.generation.sources.found import ShardImages, images_below
    from sarhpc.generation.sources.source_images import SourceImages

    if cfg.images is not None:
        return SourceImages(images_below(Path(cfg.images)), contract)
    splits = held_out_splits(run, config.evaluate.real_splits)
    return SourceImages(ShardImages(sample_shards(run, splits)), contract)


def descriptions(run: RunDir, config: RunConfig, cfg: GenerateConfig) -> list[str]:
    """A description for each image that the corpus begins with: prompts in turn, or its own.

    Raises:
        ConfigError: there are no prompts, and an image has no description.
    """
    from sarhpc.generation.plan import read_prompts

    assert cfg.image_to_image is not None
    sources = source_images(run, config, cfg.image_to_image)
    return sources.descriptions(read_prompts(cfg))


def with_sources(
    run: RunDir,
    config: RunConfig,
    cfg: GenerateConfig,
    shards: Sequence[Mapping[str, Any]],
    contract: PixelContract | None,
    size: tuple[int, int] | None,
) -> list[dict[str, Any]]:
    """Inputs of each shard, with the digest of the images that it begins with, if it does.

    Every image is read: what is refused is refused here, before any is made.

    Raises:
        ConfigError: a setting needs a contract of the model.
        DataError: some cannot be read, or are of other pixels or another size; names them.
    """
    from sarhpc.generation.sources.checks import require_law

    if cfg.image_to_image is None:
        return [dict(shard) for shard in shards]
    if cfg.image_to_image.keep_mean_px is not None:
        require_law(cfg, contract)
    surveyed = source_images(run, config, cfg.image_to_image, contract).survey(size)
    return [
        {**shard, SOURCES_SHA: surveyed.of(shard["first"], images_of_shard(shard))}
        for shard in shards
    ]


def images_of_shard(inputs: Mapping[str, Any]) -> int:
    """Images of a planned shard."""
    return len(inputs["images"]) if "images" in inputs else int(inputs["count"])


def check_source_images(key: str, cfg: ImageToImageConfig | None) -> None:
    """Raise ConfigError unless the folder of images to begin with holds some.

    Args:
        key: of the settings.
        cfg: the settings.

    Raises:
        ConfigError: there is none, it is empty, or it cannot be read.
    """
    if cfg is None or cfg.images is None:
        return
    from sarhpc.generation.sources.found import images_below

    try:
        empty = len(images_below(Path(cfg.images))) == 0
    except DataError as error:
        raise ConfigError(f"{key}.images: {error}") from error
    if empty:
        raise ConfigError(f"{key}.images: the shards below {cfg.images} hold no images")
