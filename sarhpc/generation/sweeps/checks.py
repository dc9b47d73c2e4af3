"""Settings of a sweep that cannot be, refused before any image is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpc.errors import ConfigError
from sarhpc.generation.sweeps.config import SensorConfig, SweepConfig
from sarhpc.generation.sweeps.settings import (
    STATED,
    conditions_of,
    images_per_layout,
    placeholder,
    stated_values,
)

if TYPE_CHECKING:
    from sarhpc.generation.config import GenerateConfig
    from sarhpc.shards.contract import PixelContract

MOST_SETTINGS = 256
"""Settings of a layout: its images are in memory together until they are written."""
MOST_IRW_PX = 12.0
"""Coarsest resolution, px: a quarter of the margin that is imaged beyond the borders."""
_STATED_AS = {
    "incidence_deg": "whole degrees", "spacing_m": "spacings rounded", "band": "letters",
}  # fmt: skip
SIDELOBES_DB = (15.0, 50.0)
"""Sidelobe levels that a Taylor weighting of four terms keeps."""


def check_sweep(cfg: GenerateConfig) -> None:
    """Raise ConfigError unless the sweep of `cfg`, if it has one, can be made by some model.

    Raises:
        ConfigError: the message has the setting and what to do.
    """
    sweep, at = cfg.sweep, f"{cfg.SECTION}.sweep"
    if sweep is None:
        return
    if cfg.SECTION != "generate":
        raise ConfigError(
            f"{at}: regularisation images show no radar; leave the sweep to generate.sweep"
        )
    stated = stated_values(sweep)
    if not stated and sweep.sensor is None:
        raise ConfigError(
            f"{at} has no settings: give incidence_deg, band or spacing_m, which the prompt states,"
            f" or a sensor model ({at}.sensor.resolution_m), or set {at}=null"
        )
    for name, values in stated.items():
        _require_different(f"{at}.{name}", values)
        _require_placeholder(cfg, sweep, name)
    if sweep.sensor is not None:
        _check_sensor(sweep.sensor, cfg, f"{at}.sensor")
    _require_possible_number(cfg, at)


def _require_placeholder(cfg: GenerateConfig, sweep: SweepConfig, name: str) -> None:
    at, mark, values = f"{cfg.SECTION}.sweep.{name}", placeholder(name), getattr(sweep, name)
    if mark not in cfg.prompt_template:
        raise ConfigError(
            f"{at}: no prompt would state it; put {mark} into {cfg.SECTION}.prompt_template, in "
            "the words of the captions that the model learned from"
        )
    if name != "band" and any(not 0 < value < (90 if name == "incidence_deg" else 1e3)
                              for value in values):  # fmt: skip
        unit = "degrees from 0 to 90" if name == "incidence_deg" else "metres above 0"
        raise ConfigError(f"{at}={values}: give {unit}")
    if name == "band" and any(not value.strip() for value in values):
        raise ConfigError(f"{at}={values}: give the letters of bands")
    alone = SweepConfig(**{name: values})
    texts = [conditions.prompt(mark) for conditions in conditions_of(alone)]
    if len({*texts}) < len(texts):
        raise ConfigError(
            f"{at}={values}: prompts would state {', '.join(texts)}, some of them twice, as "
            f"captions state {_STATED_AS[name]}; leave out what is the same"
        )


def _check_sensor(sensor: SensorConfig, cfg: GenerateConfig, at: str) -> None:
    if cfg.sweep is not None and cfg.sweep.spacing_m:
        raise ConfigError(
            f"{at} with {cfg.SECTION}.sweep.spacing_m: a resolution in metres needs pixels of one "
            "spacing; leave one of them out"
        )
    for name in ("resolution_m", "looks", "noise_db"):
        values = getattr(sensor, name)
        if not values:
            hint = ", for example [0.5, 1.0]" if name == "resolution_m" else ""
            raise ConfigError(f"{at}.{name} is empty: give at least one{hint}")
        _require_different(f"{at}.{name}", values)
    for name, values in (("looks", sensor.looks), ("draws", [sensor.draws])):
        if min(values) < 1:
            raise ConfigError(f"{at}.{name}={min(values)}: give 1 or more")
    for name in ("resolution_m", "model_looks"):
        value = getattr(sensor, name)
        if not all(0 < v < math.inf for v in (value if isinstance(value, list) else [value])):
            raise ConfigError(f"{at}.{name}={value}: give more than 0")
    if not SIDELOBES_DB[0] <= sensor.sidelobe_db <= SIDELOBES_DB[1]:
        raise ConfigError(
            f"{at}.sidelobe_db={sensor.sidelobe_db:g}: give {SIDELOBES_DB[0]:g} to "
            f"{SIDELOBES_DB[1]:g}"
        )
    if sensor.window_px < 3 or sensor.window_px % 2 == 0:
        raise ConfigError(f"{at}.window_px={sensor.window_px}: give an odd number of 3 or more")
    sides = [side for side in (cfg.height_px, cfg.width_px) if side is not None]
    if sides and min(sides) < sensor.window_px:
        raise ConfigError(
            f"{at}.window_px={sensor.window_px}: images of {min(sides)} px are smaller"
        )


def _require_different(at: str, values: Sequence[Any]) -> None:
    twice = [value for number, value in enumerate(values) if value in values[:number]]
    if twice:
        raise ConfigError(
            f"{at} has {'null' if twice[0] is None else twice[0]} twice: the images would be the "
            "same; leave one out (generate.sweep.sensor.draws repeats the speckle)"
        )


def _require_possible_number(cfg: GenerateConfig, at: str) -> None:
    count = images_per_layout(cfg)
    if count > MOST_SETTINGS:
        raise ConfigError(
            f"{at} has {count:,} settings of each layout: at most {MOST_SETTINGS}; give fewer "
            "values, or part the sweep into several runs of the same seed"
        )
    if count > cfg.shard_samples:
        raise ConfigError(
            f"{at} has {count} settings, and the images of a layout are in one shard: set "
            f"{cfg.SECTION}.shard_samples to {count} or more, it is {cfg.shard_samples}"
        )


def require_contract(cfg: GenerateConfig, contract: PixelContract | None, missing: str) -> None:
    """Raise ConfigError unless the model can hold the settings of the sweep, if there is one.

    Args:
        cfg: with the sweep.
        contract: of the model.
        missing: what to say of a model without one.

    Raises:
        ConfigError: the message has the setting and the bound.
    """
    sweep, at = cfg.sweep, f"{cfg.SECTION}.sweep"
    if sweep is None:
        return
    if contract is not None:
        _require_known_conditions(sweep, contract, at)
    if sweep.sensor is not None:
        _require_sensor(sweep.sensor, contract, missing, f"{at}.sensor")


def _require_known_conditions(sweep: SweepConfig, contract: PixelContract, at: str) -> None:
    for name, values in stated_values(sweep).items():
        learned = getattr(contract, STATED[name])
        if learned is None:
            continue
        if name == "band":
            unknown = [value for value in values if value not in learned]
            bounds = ", ".join(learned)
        else:
            # Captions state whole degrees.
            slack = 0.5 if name == "incidence_deg" else 1e-3 * learned[1]
            unknown = [v for v in values if not learned[0] - slack <= v <= learned[1] + slack]
            bounds = f"{learned[0]:g} to {learned[1]:g}"
        if unknown:
            raise ConfigError(
                f"{at}.{name}={unknown[0]}: the model learned from tiles of {bounds} (its "
                "contract), so that the words would mean nothing to it; stay within, or train on "
                "such tiles"
            )


def _require_sensor(
    sensor: SensorConfig, contract: PixelContract | None, missing: str, at: str
) -> None:
    from sarhpc.imaging.focusing import resolution_px
    from sarhpc.shards.contract import only

    spacing = None if contract is None else only(contract.pixel_m)
    needed = f"{at} needs the amplitude of pixels and their spacing"
    if contract is None:
        raise ConfigError(f"{needed}, or set {at}=null. {missing}")
    if contract.law is None or spacing is None:
        raise ConfigError(
            f"{needed}, which the contract of the model does not state: give the model a "
            f"contract of tiles of one normalisation and spacing, or set {at}=null"
        )
    held = resolution_px(1.0, sensor.sidelobe_db) * spacing
    finest = max(held, sensor.model_resolution_m or 0.0)
    if min(sensor.resolution_m) < finest:
        why = (
            f"that of the model's tiles ({at}.model_resolution_m)"
            if finest > held
            else f"what its pixels of {spacing:g} m hold with side lobes of "
            f"-{sensor.sidelobe_db:g} dB"
        )
        raise ConfigError(
            f"{at}.resolution_m={min(sensor.resolution_m):g}: the finest is {finest:.3f} m, {why}"
        )
    if max(sensor.resolution_m) > MOST_IRW_PX * spacing:
        raise ConfigError(
            f"{at}.resolution_m={max(sensor.resolution_m):g}: at most {MOST_IRW_PX:g} pixels of "
            f"{spacing:g} m, {MOST_IRW_PX * spacing:g} m"
        )
    _require_levels(sensor, contract, at)


def _require_levels(sensor: SensorConfig, contract: PixelContract, at: str) -> None:
    """Noise levels must lie where the law of the pixels can show them."""
    law = contract.law
    assert law is not None
    low, high = (
        20 * math.log10(max(float(amplitude), 1e-30) / noise_unit(contract))
        for amplitude in law.amplitudes(_ends(contract))
    )
    for level in sensor.noise_db:
        if level is not None and not low <= level <= high:
            raise ConfigError(
                f"{at}.noise_db={level:g}: the pixels of this model hold {low:.1f} to {high:.1f} dB"
                f" {noise_reference(contract)}; stay within, or give null for no added noise"
            )


def _ends(contract: PixelContract) -> Any:
    import numpy as np

    return np.array([contract.level_floor or 0.0, 1.0])


def noise_unit(contract: PixelContract) -> float:
    """Amplitude of 0 dB: 1 where squared amplitude is sigma0, else that of code 255."""
    law = contract.law
    assert law is not None
    return 1.0 if contract.is_calibrated else law.top


def noise_reference(contract: PixelContract) -> str:
    """What levels of noise are relative to: `sigma0`, or `code 255`."""
    return "sigma0" if contract.is_calibrated else "code 255"
