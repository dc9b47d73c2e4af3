"""Whether the stages of a run can be carried out as configured, asked before any begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from hpc.errors import ConfigError
from sarhpc.generation.config import GenerateConfig
from sarhpc.stages.config import RunConfig


def require_settings(
    config: RunConfig, stages: Iterable[str], ranks: Callable[[str], int] | None = None
) -> None:
    """Return if each of `stages` accepts its settings.

    What only data or models can tell is not asked: it stays with the stage.

    Args:
        config: of the run.
        stages: names of the stages that are to begin; the others stay as they are.
        ranks: of a training by the name of its stage; None does not ask whether batches divide
            among them.

    Raises:
        ConfigError: some do not; the message names for each the setting and what to give instead.
    """
    told = []
    for stage in stages:
        try:
            if stage in _CHECKS:
                _CHECKS[stage](config)
            if ranks is not None and stage in ("train", "caption-train"):
                _require_divisible(config, stage, ranks(stage))
        except ConfigError as error:
            told.append(str(error))
    if told:
        raise ConfigError("\n".join(told))


def _require_divisible(config: RunConfig, stage: str, ranks: int) -> None:
    from sarhpc.training.schedule import accumulation

    if stage == "train":
        with _at("train"):
            accumulation(config.train.global_batch, config.train.micro_batch, ranks)
        return
    from sarhpc.stages.caption_train import loop_config

    assert config.caption_train is not None
    told = loop_config(config.caption_train, ranks)
    with _at("caption_train"):
        accumulation(told.global_batch, told.micro_batch, ranks, "batch")


def _simulate(config: RunConfig) -> None:
    from sarhpc.archive.procedural.flight import check

    assert config.simulate is not None
    with _at("simulate"):
        check(config.simulate)
    if config.simulate.scenes < 1:
        raise ConfigError(f"simulate.scenes={config.simulate.scenes}: give at least 1")


def _tile(config: RunConfig) -> None:
    from sarhpc.tiling.settings import check_config, check_import

    if config.imported is not None:
        check_import(config.imported)
    else:
        check_config(config.tile)


def _optical(config: RunConfig) -> None:
    from sarhpc.stages.optical import require_separate

    require_separate(config)


def _caption_train(config: RunConfig) -> None:
    from sarhpc.captioning.choice import check_fine_tuning
    from sarhpc.captioning.tuning.published import require_sets
    from sarhpc.stages.caption_train import loop_config, require_teachable
    from sarhpc.training.schedule import check_engine

    require_teachable(config)
    cfg = config.caption_train
    assert cfg is not None
    with _at("caption_train"):
        check_fine_tuning(cfg)
        require_sets((*cfg.train, *cfg.val))
        check_engine(loop_config(cfg, 1))


def _caption(config: RunConfig) -> None:
    from sarhpc.captioning.choice import check_policies, require_consistent
    from sarhpc.captioning.template import check_template

    require_consistent(config.caption)
    check_policies(config.caption)
    with _at("caption"):
        check_template(config.caption.template)


def _prior(config: RunConfig) -> None:
    from sarhpc.stages.prior import settings

    assert config.prior is not None
    for name in ("adapter", "steer"):
        if getattr(config.prior, name) is not None:
            raise ConfigError(
                f"prior.{name}: the base model makes these images as it is; leave out"
            )
    _generated(settings(config))


def _encode(config: RunConfig) -> None:
    from sarhpc.stages.encode import require_encodable

    require_encodable(config)


def _train(config: RunConfig) -> None:
    from sarhpc.training.schedule import check

    with _at("train"):
        check(config.train)


def _export(config: RunConfig) -> None:
    from sarhpc.stages.export import require_exportable

    require_exportable(config)


def _generate(config: RunConfig) -> None:
    from sarhpc.stages.generate import settings

    _generated(settings(config))


def _compare(config: RunConfig) -> None:
    from sarhpc.stages.generate import settings

    if config.compare.images < 1:
        raise ConfigError(f"compare.images={config.compare.images}: give at least 1")
    _generated(dataclasses.replace(settings(config), steer=None))


def _generated(cfg: GenerateConfig) -> None:
    from sarhpc.generation.plan import check_config, read_prompts

    check_config(cfg)
    read_prompts(cfg)


def _evaluate(config: RunConfig) -> None:
    from sarhpc.evaluation.config import check_config

    check_config(config.evaluate)


@contextmanager
def _at(branch: str) -> Iterator[None]:
    """Say in which branch of the configuration a setting stands that a room calls by its name."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{branch}: {error}") from error


_CHECKS: dict[str, Callable[[RunConfig], None]] = {
    "simulate": _simulate,
    "tile": _tile,
    "optical": _optical,
    "caption-train": _caption_train,
    "caption": _caption,
    "encode": _encode,
    "prior": _prior,
    "train": _train,
    "export": _export,
    "generate": _generate,
    "compare": _compare,
    "evaluate": _evaluate,
}
