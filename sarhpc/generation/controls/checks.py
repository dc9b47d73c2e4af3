"""What no set of controls can be, whatever the model: refused before anything is planned."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hpc.errors import ConfigError
from sarhpc.diffusion.config import LAYERS
from sarhpc.generation.choices import require_choice
from sarhpc.generation.controls.config import ControlInputConfig
from sarhpc.generation.sources.checks import denoising_steps

if TYPE_CHECKING:
    from sarhpc.generation.config import GenerateConfig

MOST_STEPS = 10_000
"""Steps that are checked; no model has more timesteps."""


def check_controls(cfg: GenerateConfig) -> None:
    """Raise ConfigError unless the controls of `cfg`, if any, are of use together.

    Raises:
        ConfigError: names the setting, and what to set instead.
    """
    if cfg.steer is None:
        return
    at = f"{cfg.SECTION}.steer"
    _check_control(cfg.steer, at)
    _require_a_step(cfg.steer, cfg, at)
    for number, control in enumerate(cfg.steer.further):
        where = f"{at}.further[{number}]"
        _check_control(control, where)
        _require_a_step(control, cfg, where)
        if control.model is None:
            raise ConfigError(
                f"{where} names no model: set its model to the exported model, or to the folder of "
                "the ControlNet, that reads this layer"
            )
    if cfg.guidance_rescale:
        raise ConfigError(
            f"{cfg.SECTION}.guidance_rescale with {at}: ControlNet pipelines of diffusers have no "
            "such setting; leave it at 0."
        )


def _require_a_step(control: ControlInputConfig, cfg: GenerateConfig, at: str) -> None:
    """Raise ConfigError if no step lies wholly between `start` and `end`, as diffusers counts."""
    steps = cfg.steps
    if cfg.image_to_image is not None and 0 < cfg.image_to_image.strength <= 1:
        steps = denoising_steps(steps, cfg.image_to_image.strength)
    # Heun predicts twice a step, but for the last one.
    steps = 2 * steps - 1 if cfg.scheduler == "heun" else steps
    inside = (step / steps >= control.start and (step + 1) / steps <= control.end
              for step in range(min(steps, MOST_STEPS)))  # fmt: skip
    if steps > 0 and control.scale != 0 and not any(inside):
        raise ConfigError(
            f"{at}.start={control.start:g} and end={control.end:g} hold none of {steps} steps: the "
            f"ControlNet would never contribute; widen them, or raise {cfg.SECTION}.steps"
        )


def require_prompts(cfg: GenerateConfig) -> None:
    """Raise ConfigError where drawings steer images that have no prompts.

    Raises:
        ConfigError: what to set.
    """
    drawn = cfg.steer is not None and cfg.steer.sketch is not None
    if drawn and not (cfg.prompts or cfg.prompts_file or cfg.table):
        at = cfg.SECTION
        raise ConfigError(
            f"{at}.steer.sketch without prompts: a drawing has no caption; set {at}.prompts, "
            f"{at}.prompts_file or {at}.table"
        )


def _check_control(control: ControlInputConfig, at: str) -> None:
    require_choice(f"{at}.layer", control.layer, tuple(LAYERS))
    most = {"scale": sys.float_info.max, "start": 1.0, "end": 1.0}
    for name, high in most.items():
        # Those of `further` are items of a list, which no range of the configuration bounds.
        if not 0 <= getattr(control, name) <= high:
            given = f"{at}.{name} is {getattr(control, name):g}"
            raise ConfigError(f"{given}: give {'at least 0' if high > 1 else '0 to 1'}")
    if control.start >= control.end:
        raise ConfigError(
            f"{at}.start is {control.start:g} and {at}.end {control.end:g}: the ControlNet would "
            f"never contribute; make start the smaller one, or leave it out by {at}.scale=0"
        )
    if control.sketch is None:
        return
    if control.shards is not None:
        raise ConfigError(f"{at}.sketch replaces {at}.shards: leave one of them out")
    if control.layer != "edges":
        raise ConfigError(
            f"{at}.sketch with {at}.layer={control.layer}: a drawing of lines stands for `edges`; "
            f"layers of other kinds come from shards, {at}.shards"
        )
