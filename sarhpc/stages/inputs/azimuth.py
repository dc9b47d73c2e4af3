"""Whether the rows of tiles run along azimuth, so that they may be flipped along it."""

from __future__ import annotations

from hpc.errors import ConfigError
from hpc.store.rundir import RunDir
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.prompts import TRAIN_SPLITS, sample_shards


def require_known_axis(config: RunConfig, key: str) -> None:
    """Raise ConfigError where imported images do not say where range is.

    Args:
        config: of the run.
        key: of the setting that flips tiles.

    Raises:
        ConfigError: what to set.
    """
    if config.imported is not None and config.imported.range_direction is None:
        raise _unknown_axis(key)


def require_flippable(run: RunDir, key: str) -> None:
    """Raise ConfigError unless near range is at column 0 of all tiles to train on.

    Args:
        run: whose tiles they are.
        key: of the setting that flips them.

    Raises:
        ConfigError: one does not say where it is.
    """
    from sarhpc.shards.tile_contract import contract_of_shards

    if contract_of_shards(sample_shards(run, TRAIN_SPLITS)).range_direction != "+col":
        raise _unknown_axis(key)


def _unknown_axis(key: str) -> ConfigError:
    return ConfigError(
        f"{key} flips rows, and it is not known that they run along azimuth: a flip along range "
        "would move the sensor to the other side; set imported.range_direction (+col, -col, +row "
        f"or -row), which turns the images, or leave {key} out"
    )
