"""A few images of the run's model that begin with others, for one line of the report."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.errors import ConfigError
from hpc.store.plan import read_plan
from hpc.store.rundir import RunDir
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.sources.checks import check_image_to_image
from sarhpc.stages.config import RunConfig
from sarhpc.stages.exchanged import exchanged
from sarhpc.stages.generate import settings
from sarhpc.stages.inputs.contracts import contract_for
from sarhpc.stages.inputs.image_size import size_of_images, size_of_tiles
from sarhpc.stages.inputs.source_images import descriptions, source_images, with_sources
from sarhpc.stages.work.sharded import sealed_records

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IMAGE_TO_IMAGE = "image to image"
"""Name of the set among those of other models."""
BEGUN_IMAGES = 8
"""Images of the set."""
_BLOCK_PX = 8
"""Side of the blocks whose mean power is compared: 64 pixels, beside which speckle is small."""


def image_to_image_settings(config: RunConfig) -> GenerateConfig:
    """How the images of the set are made: as those of the corpus, but for what they begin with."""
    return dataclasses.replace(
        settings(config),
        image_to_image=config.compare.image_to_image,
        images=BEGUN_IMAGES,
        prompts=[],
        prompts_file=None,
        table=None,
        steer=None,
        scene=None,
        sweep=None,
        gate=None,
        guidance_rescale=0.0,
    )


def check_image_to_image_set(config: RunConfig) -> None:
    """Raise ConfigError unless the set can be made as configured, if it is asked for.

    Raises:
        ConfigError: a strength out of range, a model of the set's name, or a ControlNet.
    """
    if config.compare.image_to_image is None:
        return
    if IMAGE_TO_IMAGE in config.compare.models:
        raise ConfigError(
            f"compare.models: the name {IMAGE_TO_IMAGE!r} is that of compare.image_to_image; give "
            "the model another one"
        )
    if settings(config).steer is not None:
        raise ConfigError(
            "compare.image_to_image: the model of the run has a ControlNet; leave it out, and set "
            "generate.image_to_image beside generate.steer"
        )
    check_image_to_image(image_to_image_settings(config), "compare.image_to_image")


def image_to_image_shards(run: RunDir, config: RunConfig) -> list[dict[str, Any]]:
    """Inputs of the shards of the set; none where it is not asked for.

    Raises:
        DataError: images to begin with are missing, or of other pixels than the model's.
    """
    from sarhpc.generation.adapters.chosen import planned_adapters
    from sarhpc.generation.plan import plan_generation

    if config.compare.image_to_image is None:
        return []
    cfg = image_to_image_settings(config)
    [export] = sealed_records(run, "export")
    model = Path(export.path)
    contract = contract_for(model, cfg)
    facts = {
        "model": export.path,
        "model_sha": export.sha256,
        "set": IMAGE_TO_IMAGE,
        "contract": None if contract is None else contract.to_json(),
        **planned_adapters(model, cfg),
        **size_of_tiles(run, cfg, model),
    }
    planned = plan_generation(cfg, descriptions(run, config, cfg))
    size = size_of_images(run, cfg, model)
    return [{**shard, **facts} for shard in with_sources(run, config, cfg, planned, contract, size)]


def image_to_image_notes(run: RunDir, config: RunConfig) -> list[str]:
    """How much of the images is kept, as a sentence for the report; none without the set."""
    import numpy as np

    from sarhpc.generation.pixels import planned_contract
    from sarhpc.shards.images import decode_gray8
    from sarhpc.shards.reader import read_shard

    cfg = config.compare.image_to_image
    if cfg is None:
        return []
    plan = read_plan(run.plan_file("compare"))
    inputs = {task.id: task.inputs for task in plan.shards}
    records = [r for r in sealed_records(run, "compare") if r.detail["set"] == IMAGE_TO_IMAGE]
    begun: list[NDArray[np.float32]] = []
    made: list[NDArray[np.float32]] = []
    for record in records:
        shard = inputs[record.shard]
        sources = source_images(run, config, cfg, planned_contract(shard))
        for sample in read_shard(Path(record.path)):
            begun.append(sources.load(shard["first"] + int(sample.key[-5:])).levels)
            made.append(
                decode_gray8(sample.members["sar.png"]).astype(np.float32) / np.float32(255)
            )
    if len(made) < 2:
        return []
    same = [_correlation(one, other) for one, other in zip(begun, made, strict=True)]
    line = (
        f"Image to image: {len(made)} images of this run begin with others, strength "
        f"{cfg.strength:g}. Mean levels of {_BLOCK_PX} x {_BLOCK_PX} px correlate by "
        f"{np.mean(same):.2f} with those of the image that each begins with"
    )
    next_ones = exchanged(begun, 1)
    if next_ones is None:
        return [f"{line}, which is the same one for all."]
    others = [_correlation(one, other) for one, other in zip(next_ones, made, strict=True)]
    return [f"{line}, and by {np.mean(others):.2f} with those of the next one."]


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Correlation of the logarithms of the mean power of blocks; 0 where one of them is flat."""
    import numpy as np

    first, second = (_blocks(image) for image in (one, other))
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _blocks(levels: NDArray[np.float32]) -> NDArray[np.float64]:
    import numpy as np

    rows, columns = (side // _BLOCK_PX for side in levels.shape)
    power = np.square(levels[: rows * _BLOCK_PX, : columns * _BLOCK_PX].astype(np.float64))
    blocks = power.reshape(rows, _BLOCK_PX, columns, _BLOCK_PX).mean(axis=(1, 3))
    return np.asarray(np.log(blocks + 1e-6)).ravel()
