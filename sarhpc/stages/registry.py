"""The stages of a run, in the order in which data walks through them."""

from __future__ import annotations

import functools
import hashlib
import json

from hpc.config import changes_since, loads, to_dict
from hpc.errors import ConfigError, FingerprintMismatchError
from hpc.run.pipeline import Stage
from hpc.run.rundir import RunDir
from sarhpc.stages.config import RunConfig

BRANCHES = {
    "simulate": ["simulate"],
    "tile": ["archive", "tile", "imported"],
    "caption-train": ["caption_train"],
    "caption": ["caption"],
    "encode": ["encode"],
    "train": ["train"],
    "export": ["export"],
    "generate": ["generate"],
    "compare": ["compare", "generate"],
    "evaluate": ["evaluate"],
}
"""Stage -> branches of the configuration that decide what it makes."""


@functools.lru_cache(maxsize=8)
def _parsed(text: str, source: str) -> RunConfig:
    return loads(RunConfig, text, source=source)


def load_run_config(run: RunDir) -> RunConfig:
    """The frozen configuration of a run.

    Raises:
        FingerprintMismatchError: someone edited what decides what the run makes.
    """
    config = _parsed(run.config_file.read_text(), str(run.config_file))
    changes = changes_since(run.info.get("config", {}), config)
    if changes:
        raise FingerprintMismatchError(
            f"{run.config_file} was edited since the run was frozen: {'; '.join(changes[:5])}; "
            "put the old values back, or start a new run directory with the new ones"
        )
    return config


def stage_fingerprint(config: RunConfig, stage: str) -> str:
    """Sixteen hex digits over the branches of the configuration that `stage` depends on."""
    plain = to_dict(config, transient=False)
    text = json.dumps({branch: plain[branch] for branch in BRANCHES[stage]}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def line_of_stages(config: RunConfig) -> list[Stage]:
    """The stages this configuration asks for, in order."""
    from sarhpc.stages import caption, encode, evaluate, export, generate, simulate, tile, train

    stages = [simulate.simulate_stage(config)] if config.simulate is not None else []
    stages.append(tile.tile_stage(config))
    if config.caption_train is not None:
        stages.append(caption.caption_train_stage(config))
    stages.append(caption.caption_stage(config))
    if config.encode is not None:
        stages.append(encode.encode_stage(config))
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
