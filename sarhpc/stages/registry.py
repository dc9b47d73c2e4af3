"""The stages of a run, in the order in which data walks through them."""

from __future__ import annotations

from hpc.errors import ConfigError
from hpc.job.pipeline import Stage
from sarhpc.stages.config import RunConfig


def line_of_stages(config: RunConfig) -> list[Stage]:
    """The stages this configuration asks for, in order."""
    from sarhpc.stages import (
        caption,
        caption_train,
        encode,
        evaluate,
        export,
        generate,
        optical,
        prior,
        simulate,
        tile,
        train,
    )

    stages = [simulate.simulate_stage(config)] if config.simulate is not None else []
    stages.append(tile.tile_stage(config))
    if config.optical is not None:
        stages.append(optical.optical_stage(config))
    if config.caption_train is not None:
        stages.append(caption_train.caption_train_stage(config))
    stages.append(caption.caption_stage(config))
    if config.encode is not None:
        stages.append(encode.encode_stage(config))
    if config.prior is not None:
        stages.append(prior.prior_stage(config))
    stages += [train.train_stage(config), export.export_stage(config)]
    if config.generate is not None:
        stages.append(generate.generate_stage(config))
        if config.compare.models:
            stages.append(generate.compare_stage(config))
        stages.append(evaluate.evaluate_stage(config))
    return stages


def stage_named(config: RunConfig, name: str) -> Stage:
    """The stage of that name.

    Raises:
        ConfigError: the configuration does not ask for it.
    """
    stages = {stage.name: stage for stage in line_of_stages(config)}
    if name not in stages:
        raise ConfigError(f"this run has no stage {name!r}; it has {', '.join(stages)}")
    return stages[name]
