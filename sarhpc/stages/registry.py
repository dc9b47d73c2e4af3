"""The one list of stages, in the order in which data walks through them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpc.errors import ConfigError
from hpc.job.pipeline import Stage
from sarhpc.stages.caption import CAPTION
from sarhpc.stages.caption_train import CAPTION_TRAIN
from sarhpc.stages.clip_train import CLIP_TRAIN
from sarhpc.stages.compare import COMPARE
from sarhpc.stages.config import RunConfig
from sarhpc.stages.encode import ENCODE
from sarhpc.stages.evaluate import EVALUATE
from sarhpc.stages.export import EXPORT
from sarhpc.stages.generate import GENERATE
from sarhpc.stages.optical import OPTICAL
from sarhpc.stages.prior import PRIOR
from sarhpc.stages.simulate import SIMULATE
from sarhpc.stages.spec import StageSpec
from sarhpc.stages.tile import TILE
from sarhpc.stages.train import TRAIN

if TYPE_CHECKING:
    from hpc.cluster.draft import Request

STAGES: tuple[StageSpec, ...] = (
    SIMULATE,
    TILE,
    OPTICAL,
    CAPTION_TRAIN,
    CAPTION,
    CLIP_TRAIN,
    ENCODE,
    PRIOR,
    TRAIN,
    EXPORT,
    GENERATE,
    COMPARE,
    EVALUATE,
)


def specs_of(config: RunConfig) -> list[StageSpec]:
    """The stages this configuration asks for, in order."""
    return [spec for spec in STAGES if spec.enabled(config)]


def spec_named(name: str) -> StageSpec:
    """The description of a stage.

    Raises:
        KeyError: there is none of that name.
    """
    return {spec.name: spec for spec in STAGES}[name]


def line_of_stages(config: RunConfig) -> list[Stage]:
    """The stages of a run, ready to be planned and carried out, in order."""
    line: list[Stage] = []
    for spec in specs_of(config):
        line.append(spec.build(config, [stage.name for stage in line]))
    return line


def stage_named(config: RunConfig, name: str) -> Stage:
    """The stage of that name.

    Raises:
        ConfigError: the configuration does not ask for it.
    """
    stages = {stage.name: stage for stage in line_of_stages(config)}
    if name not in stages:
        raise ConfigError(
            f"this run has no stage {name!r}; it has {', '.join(stages)}. {_how_to_have(name)}"
        )
    return stages[name]


def _how_to_have(name: str) -> str:
    """What a user does who wants the stage."""
    name = next((spec.branches[0] for spec in STAGES if spec.name == name and spec.branches), "")
    if not name:
        return "See sarhpc --help for the stages that there are"
    return f"To have it, start a new run that sets {name} (sarhpc init RUN '{name}={{}}')"


def used_models(config: RunConfig) -> list[str]:
    """Names of the models a run starts from: `embedded:NAME`, `fetched:NAME` or folders."""
    return [name for spec in specs_of(config) for name in spec.models(config)]


def profile_requests() -> dict[str, Request]:
    """What the stages ask for in a drafted profile; without those that take its default."""
    return {spec.name: spec.request for spec in STAGES if spec.request is not None}
