"""Noise schedules of sampling: which noise levels each sampler visits, and what takes which.

Two schedules must not be confused. The *betas* say which noise each timestep carries in training;
they belong to the model, which learned timesteps under them, and sampling never changes them. The
*schedule of sampling* selects the timesteps or noise levels at which noise is removed. Every one is
an option of the scheduler of diffusers; an option that a scheduler would ignore is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.documents import read_json
from hpc.errors import ConfigError, DataError
from sarhpc.diffusion.families.family import SCHEDULER
from sarhpc.generation.choices import require_choice
from sarhpc.generation.config import GenerateConfig

_EVENLY = {"timestep_spacing": "linspace"}
_OPTIONS: dict[str, dict[str, Any]] = {
    "linear": _EVENLY,
    "scaled_linear": _EVENLY,
    "trailing": {"timestep_spacing": "trailing"},
    # Evenly spaced as well: Euler and Heun take first and last noise level from the timesteps.
    "exponential": {**_EVENLY, "use_exponential_sigmas": True},
    "karras": {**_EVENLY, "use_karras_sigmas": True},
    "beta": {**_EVENLY, "use_beta_sigmas": True},
}
SCHEDULES = tuple(_OPTIONS)
_OF_BETAS = ("linear", "scaled_linear")
"""Schedules whose noise levels are those of the betas that they are called after."""
_OF_TIMESTEPS = (*_OF_BETAS, "trailing")

_TAKEN = {
    "ddim": _OF_TIMESTEPS,
    "euler": SCHEDULES,
    "dpmsolver": SCHEDULES,
    "pndm": _OF_TIMESTEPS,
    "unipc": SCHEDULES,
    "heun": SCHEDULES,
    "euler_ancestral": _OF_TIMESTEPS,
}
"""Sampler -> the schedules that its scheduler of diffusers follows; it ignores any other."""
SCHEDULERS = tuple(_TAKEN)

_PLAIN_BETAS = ("pndm", "heun")
"""Samplers whose scheduler cannot rescale betas to zero terminal SNR."""


@dataclass(frozen=True)
class ModelNoise:
    """The noise that a model was trained with."""

    betas: str = "linear"
    """How its betas grow: `linear`, `scaled_linear`, `squaredcos_cap_v2` or `given`."""
    timesteps: int = 1000
    zero_terminal_snr: bool = False


def schedule_options(cfg: GenerateConfig) -> dict[str, Any]:
    """Options of the scheduler for `cfg.schedule`; none leaves those of the model."""
    return {} if cfg.schedule is None else dict(_OPTIONS[cfg.schedule])


def schedule_facts(cfg: GenerateConfig) -> dict[str, str]:
    """The schedule for the metadata of an image; nothing if it is the model's own."""
    return {} if cfg.schedule is None else {"schedule": cfg.schedule}


def check_schedule(cfg: GenerateConfig) -> None:
    """Raise ConfigError unless the sampler follows the schedule.

    Raises:
        ConfigError: unknown ones, a pair that diffusers ignores, or too few steps.
    """
    at = cfg.SECTION
    require_choice(f"{at}.scheduler", cfg.scheduler, SCHEDULERS)
    if cfg.schedule is None:
        return
    require_choice(f"{at}.schedule", cfg.schedule, SCHEDULES)
    if cfg.schedule not in _TAKEN[cfg.scheduler]:
        others = [name for name, taken in _TAKEN.items() if cfg.schedule in taken]
        raise ConfigError(
            f"{at}.schedule={cfg.schedule}: the sampler {cfg.scheduler} ignores it. It takes "
            f"{', '.join(_TAKEN[cfg.scheduler])}; {cfg.schedule} is for {at}.scheduler "
            f"{', '.join(others)}."
        )
    if cfg.steps < 2 and cfg.schedule != "trailing":
        raise ConfigError(
            f"{at}.schedule={cfg.schedule} needs at least 2 steps, from the first noise level to "
            f"the last; with {at}.steps={cfg.steps} use trailing."
        )


def check_model_schedule(
    folder: Path, cfg: GenerateConfig, *, zero_terminal_snr: bool = False
) -> None:
    """Raise ConfigError unless the model in `folder` can be sampled as `cfg` says.

    Args:
        folder: diffusers folder; without a scheduler in it nothing is checked.
        cfg: sampler, schedule and steps.
        zero_terminal_snr: whether the model is yet to be trained to zero terminal SNR.

    Raises:
        ConfigError: the sampler or the schedule is not for a model of such noise, or it has fewer
            timesteps than there are steps.
        DataError: the scheduler's configuration cannot be read.
    """
    noise = _model_noise(folder)
    if noise is not None:
        rescaled = noise.zero_terminal_snr or zero_terminal_snr
        _require_sampled(dataclasses.replace(noise, zero_terminal_snr=rescaled), folder, cfg)


def _require_sampled(noise: ModelNoise, folder: Path, cfg: GenerateConfig) -> None:
    at = cfg.SECTION
    if noise.zero_terminal_snr and cfg.scheduler in _PLAIN_BETAS:
        able = ", ".join(name for name in SCHEDULERS if name not in _PLAIN_BETAS)
        raise ConfigError(
            f"{at}.scheduler={cfg.scheduler}: {folder} is trained to zero terminal SNR, and this "
            f"sampler would take other betas than it is trained with; use {able}."
        )
    if noise.zero_terminal_snr and cfg.schedule not in (None, *_OF_TIMESTEPS):
        raise ConfigError(
            f"{at}.schedule={cfg.schedule}: {folder} is trained to zero terminal SNR, where the "
            "first noise level has no bound and such a schedule spends most steps on nothing but "
            f"noise; use trailing, or leave {at}.schedule=null."
        )
    if cfg.schedule in _OF_BETAS and cfg.schedule != noise.betas:
        own = noise.betas if noise.betas in _OF_BETAS else "trailing"
        raise ConfigError(
            f"{at}.schedule={cfg.schedule}: the betas of {folder} are {noise.betas}, and sampling "
            f"keeps the betas that a model is trained with; use {own}."
        )
    most = noise.timesteps if cfg.schedule is None else noise.timesteps - 1
    if cfg.steps > most:
        raise ConfigError(
            f"{at}.steps={cfg.steps}: {folder} has {noise.timesteps} timesteps; give at most "
            f"{most}."
        )


def _model_noise(folder: Path) -> ModelNoise | None:
    path = folder / SCHEDULER / "scheduler_config.json"
    if not path.is_file():
        return None
    try:
        found: Mapping[str, Any] = read_json(path)
        betas = "given" if found.get("trained_betas") else str(found.get("beta_schedule", "linear"))
        return ModelNoise(
            betas,
            int(found.get("num_train_timesteps", 1000)),
            bool(found.get("rescale_betas_zero_snr", False)),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read ({error}): export the model again.") from error
