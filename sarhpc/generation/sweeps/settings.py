"""The settings of a sweep: conditions that prompts state, and sensors of the sensor model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sarhpc.generation.sweeps.config import SweepConfig
from sarhpc.shards.condition_texts import CONDITIONS, metadata_values

if TYPE_CHECKING:
    from sarhpc.generation.config import GenerateConfig

LAYOUT_IMAGES = "layout_images"
"""Entry of a shard's inputs: images of each layout; none without a sweep."""
STATED = {"incidence_deg": "incidence_deg", "spacing_m": "pixel_m", "band": "band"}
"""Setting of a sweep that a prompt states -> entry of `meta.json`."""


@dataclass(frozen=True)
class PromptConditions:
    """What one prompt of a layout states."""

    meta: Mapping[str, Any] = field(default_factory=dict)
    """Entries of `meta.json`."""

    def prompt(self, prompt: str) -> str:
        """The prompt of the layout with these conditions in the place of their placeholders."""
        for name, text in metadata_values(self.meta).items():
            prompt = prompt.replace(f"{{{name}}}", text)
        return prompt


@dataclass(frozen=True)
class Sensor:
    """One setting of the sensor model."""

    resolution_m: float
    looks: int
    noise_db: float | None
    draw: int
    """Number of the speckle draw, from 0."""


def placeholder(name: str) -> str:
    """What stands in prompts for a condition of a sweep, such as `{incidence}`."""
    return next(f"{{{mark}}}" for mark, entry in CONDITIONS.items() if entry == STATED[name])


def stated_values(sweep: SweepConfig) -> dict[str, list[Any]]:
    """Conditions that prompts state -> their values; those that are not swept are left out."""
    found = {name: list(getattr(sweep, name)) for name in STATED}
    return {name: values for name, values in found.items() if values}


def conditions_of(sweep: SweepConfig) -> list[PromptConditions]:
    """Every combination of conditions, in order; one without any where prompts state none."""
    values = stated_values(sweep)
    entries = [STATED[name] for name in values]
    return [
        PromptConditions(dict(zip(entries, combination, strict=True)))
        for combination in itertools.product(*values.values())
    ]


def sensors_of(sweep: SweepConfig) -> list[Sensor]:
    """Every setting of the sensor model, in order; none where there is no sensor model."""
    sensor = sweep.sensor
    if sensor is None:
        return []
    combinations = itertools.product(
        sensor.resolution_m, sensor.looks, sensor.noise_db, range(sensor.draws)
    )
    return [Sensor(*combination) for combination in combinations]


def images_per_layout(cfg: GenerateConfig) -> int:
    """Images that each layout becomes; 1 without a sweep."""
    if cfg.sweep is None:
        return 1
    stated = 1
    for values in stated_values(cfg.sweep).values():
        stated *= len(values)
    sensor = cfg.sweep.sensor
    if sensor is None:
        return stated
    lists = len(sensor.resolution_m) * len(sensor.looks) * len(sensor.noise_db)
    return stated * lists * sensor.draws


def layouts_per_shard(cfg: GenerateConfig) -> int:
    """Layouts of a shard, so that all images of a layout are in one; images without a sweep."""
    return max(1, cfg.shard_samples // max(1, images_per_layout(cfg)))


def layout_inputs(cfg: GenerateConfig) -> dict[str, int]:
    """Entry of the inputs of each shard about its layouts; nothing without a sweep."""
    return {} if cfg.sweep is None else {LAYOUT_IMAGES: images_per_layout(cfg)}
