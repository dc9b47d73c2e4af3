"""The range of each number of the configuration that no check of its own bounds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hpc.errors import ConfigError
from sarhpc.stages.config import RunConfig


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`."""

    low: float
    high: float = math.inf
    excludes_low: bool = False
    excludes_high: bool = False

    def holds(self, value: float) -> bool:
        """Whether `value` lies within it."""
        if (self.excludes_low and value == self.low) or (self.excludes_high and value == self.high):
            return False
        return self.low <= value <= self.high

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'more than' if self.excludes_low else 'at least'} {self.low:g}"
        if self.excludes_high:
            return f"more than {self.low:g} and less than {self.high:g}"
        lower = "more than" if self.excludes_low else "from"
        return f"{lower} {self.low:g} {'and at most' if self.excludes_low else 'to'} {self.high:g}"


_COUNT, _NOT_NEGATIVE, _POSITIVE = Range(1), Range(0), Range(0, excludes_low=True)
_SHARE, _PART = Range(0, 1), Range(0, 1, excludes_low=True)
_OPEN = Range(0, 1, excludes_low=True, excludes_high=True)

_KEYS = {
    _COUNT: """
        tile.max_tiles imported.px evaluate.memory.images prior.gate.tiles generate.gate.tiles
        prior.gate.memorised.tiles generate.gate.memorised.tiles
        prior.gate.other_class.tiles generate.gate.other_class.tiles
        caption.batch caption.max_tokens caption.beams caption.threads caption.max_repeats
        caption.clip.keep caption.clip.candidates
        caption_train.new.image_px caption_train.new.patch_px caption_train.new.vision_width
        caption_train.new.vision_layers caption_train.new.vision_heads caption_train.new.text_width
        caption_train.new.text_layers caption_train.new.text_heads caption_train.new.max_positions
        caption_train.new.vocabulary caption_train.readers
        clip_train.new.image_px clip_train.new.patch_px clip_train.new.vision_width
        clip_train.new.vision_layers clip_train.new.vision_heads clip_train.new.text_width
        clip_train.new.text_layers clip_train.new.text_heads clip_train.new.projection
        clip_train.readers
        encode.threads train.adapter.rank train.adapter.block train.max_steps train.judge.tiles
        cluster.workers cluster.ranks cluster.time_min generate.table.max_per_prompt
        generate.sweep.sensor.draws prior.sweep.sensor.draws
        """,
    _NOT_NEGATIVE: """
        simulate.scene_kinds.water simulate.scene_kinds.forest simulate.scene_kinds.field
        simulate.scene_kinds.town simulate.scene_kinds.mixed simulate.trihedrals
        simulate.ambiguity_shift_m tile.max_optical_delta_days tile.other.max_days
        tile.split.buffer_m optical.max_delta_days caption.min_words caption_train.seed
        clip_train.seed prior.guidance generate.guidance train.token.lr
        generate.steer.scale
        train.control.lr train.prior.weight train.seed train.validation_guidance
        evaluate.seed evaluate.gates.w1_db evaluate.gates.acf_lag1 evaluate.gates.lsd_db
        evaluate.gates.use_ratio
        cluster.quota_gb cluster.quota_inodes
        evaluate.memory.pairs prior.gate.redraws generate.gate.redraws
        """,
    _POSITIVE: """
        evaluate.memory.gib
        tile.survey_mpx imported.pixel_m caption.temperature prior.pixel_m generate.pixel_m
        prior.homogeneous_areas.looks generate.homogeneous_areas.looks
        generate.sweep.spacing_m generate.sweep.sensor.resolution_m
        generate.sweep.sensor.model_looks generate.sweep.sensor.model_resolution_m
        prior.sweep.spacing_m prior.sweep.sensor.resolution_m
        prior.sweep.sensor.model_looks prior.sweep.sensor.model_resolution_m
        train.min_snr_gamma train.adapter.alpha train.adam_epsilon
        generate.table.grammar.spacing_m generate.table.grammar.incidence_deg
        """,
    _SHARE: """
        tile.min_valid tile.max_saturated tile.min_signal tile.min_optical_coverage
        optical.min_coverage optical.max_cloud caption.clip.min_share
        caption.template.metadata_dropout evaluate.gates.unmeasurable evaluate.gates.manifest
        evaluate.gates.memorised
        generate.steer.start
        generate.steer.end
        """,
    _PART: """
        tile.other.min_coverage caption.top_p prior.image_to_image.strength
        generate.image_to_image.strength
        compare.image_to_image.strength
        """,
    _OPEN: """
        prior.gate.false_rejects generate.gate.false_rejects
        prior.gate.memorised.false_alarms generate.gate.memorised.false_alarms
        prior.gate.other_class.false_rejects generate.gate.other_class.false_rejects
        evaluate.memory.false_alarms
        """,
    Range(0, 100, excludes_low=True): "tile.percentile",
    # Time grows with the number of looks, memory with the width of the Gaussian.
    Range(1, 1000): "generate.sweep.sensor.looks prior.sweep.sensor.looks",
    Range(0, 1000, excludes_low=True): """
        prior.image_to_image.keep_mean_px generate.image_to_image.keep_mean_px
        compare.image_to_image.keep_mean_px
        """,
    Range(514): "clip_train.new.vocabulary",
    Range(0, 90): "imported.incidence_deg",
    Range(0, 90, excludes_low=True, excludes_high=True): """
        generate.sweep.incidence_deg prior.sweep.incidence_deg
        """,
    Range(3): """
        clip_train.new.max_positions generate.sweep.sensor.window_px prior.sweep.sensor.window_px
        """,
    Range(15, 50): "generate.sweep.sensor.sidelobe_db prior.sweep.sensor.sidelobe_db",
    Range(16): "prior.homogeneous_areas.side_px generate.homogeneous_areas.side_px",
    Range(8): """
        prior.height_px prior.width_px train.image_px
        prior.scene.rows_px prior.scene.columns_px prior.scene.decode_px
        generate.scene.rows_px generate.scene.columns_px generate.scene.decode_px
        """,
}
RANGES = {key: bounds for bounds, keys in _KEYS.items() for key in keys.split()}
"""Key -> range of its number, or of each in its list. A number in no range is checked by its part
of the program, or may be anything finite (seeds that are hashed, levels in dB)."""


def out_of_range(config: RunConfig, branches: Iterable[str]) -> list[str]:
    """A line for each number in `branches` that is not finite or not in its range."""
    return [line for name in branches for line in _wrong_numbers(name, getattr(config, name))]


def require_in_range(branch: str, settings: Any) -> None:
    """Raise ConfigError unless each number in the settings of a branch is in its range.

    For settings that are no part of the configuration of a run.

    Raises:
        ConfigError: names each that is not.
    """
    lines = list(_wrong_numbers(branch, settings))
    if lines:
        raise ConfigError("\n".join(lines))


def _wrong_numbers(branch: str, settings: Any) -> Iterator[str]:
    for key, value in _numbers(settings, branch):
        bounds = RANGES.get(key)
        if not math.isfinite(value):
            yield f"{key}={value}: give a finite number"
        elif bounds is not None and not bounds.holds(value):
            yield f"{key}={value}: give {bounds}"


def _numbers(value: Any, key: str) -> Iterator[tuple[str, float]]:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _numbers(getattr(value, field.name), f"{key}.{field.name}")
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value
