"""What a dry run shows of a sensor sweep: settings, and images of all layouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sarhpc.stages.config import RunConfig
from sarhpc.stages.planned_corpus import layouts_of


def sweep_lines(config: RunConfig) -> list[str]:
    """The settings of a sweep and the number of images; nothing without a sweep.

    Raises:
        ConfigError: the prompt table cannot be planned.
    """
    from sarhpc.generation.sweeps.settings import images_per_layout, stated_values

    cfg = config.generate
    if cfg is None or cfg.sweep is None:
        return []
    parts = [_listed(name, values) for name, values in stated_values(cfg.sweep).items()]
    if (sensor := cfg.sweep.sensor) is not None:
        parts += [
            _listed(name, getattr(sensor, name)) for name in ("resolution_m", "looks", "noise_db")
        ]
        parts.append(f"{sensor.draws} speckle draw{'s' if sensor.draws > 1 else ''}")
    each, layouts = images_per_layout(cfg), layouts_of(config)
    number = "each layout" if layouts is None else f"{layouts:,} layouts"
    total = "" if layouts is None else f" = {layouts * each:,} images"
    lines = [f"sweep: {number} x {each} settings{total}: {'; '.join(parts)}"]
    if cfg.gate is not None:
        lines.append(
            "the gate judges what the model draws of a layout, before the sensor model; where it "
            "refuses, the whole layout is drawn again"
        )
    if sensor is not None:
        lines.append(
            "evaluate measures the whole corpus, images of other looks and resolutions than the "
            "real tiles among it: judge the model by a corpus without a sweep"
        )
    return lines


def _listed(name: str, values: Sequence[Any]) -> str:
    texts = ("none" if v is None else v if isinstance(v, str) else f"{v:g}" for v in values)
    return f"{name} {', '.join(texts)}"
