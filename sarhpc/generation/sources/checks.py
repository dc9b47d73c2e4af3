"""What is refused of image to image before anything is made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hpc.errors import ConfigError

if TYPE_CHECKING:
    from sarhpc.generation.config import GenerateConfig
    from sarhpc.shards.contract import PixelContract
    from sarhpc.shards.radiometry import Normalisation


def check_image_to_image(cfg: GenerateConfig, key: str | None = None) -> None:
    """Raise ConfigError unless images can be begun with as configured, if they are to be.

    Args:
        cfg: all settings.
        key: where those of image to image were set; None: in the section of `cfg`.

    Raises:
        ConfigError: a strength out of range or of no step, or a setting that does not combine.
    """
    image = cfg.image_to_image
    if image is None:
        return
    at = key or f"{cfg.SECTION}.image_to_image"
    if image.images == "":
        raise ConfigError(
            f"{at}.images is empty: name a folder of pictures or of shards, or give null for the "
            "held-out tiles of the run"
        )
    if not 0 < image.strength <= 1:
        raise ConfigError(
            f"{at}.strength is {image.strength:g}: give more than 0 and at most 1; 0.3 keeps most "
            "of an image, 1 nearly nothing"
        )
    if denoising_steps(cfg.steps, image.strength) < 1:
        raise ConfigError(
            f"{at}.strength={image.strength:g} of {cfg.SECTION}.steps={cfg.steps} is less than one "
            f"step: give at least {math.ceil(1 / image.strength)} steps, or a strength of at least "
            f"{math.ceil(1e4 / cfg.steps) / 1e4:g}"
        )
    if image.keep_mean_px is not None and not 0 < image.keep_mean_px < math.inf:
        raise ConfigError(
            f"{at}.keep_mean_px is {image.keep_mean_px:g}: give more than 0, such as 4, or null"
        )
    if cfg.sweep is not None:
        raise ConfigError(
            f"{cfg.SECTION}.sweep with {at}: images of a layout begin with the same noise; leave "
            "one of the two out"
        )
    if cfg.guidance_rescale:
        raise ConfigError(
            f"{cfg.SECTION}.guidance_rescale with {at}: pipelines of diffusers that begin with an "
            "image have no such setting, but for one of SDXL; leave it at 0"
        )


def require_law(cfg: GenerateConfig, contract: PixelContract | None) -> Normalisation:
    """The law by which levels of the model's images are amplitude.

    Raises:
        ConfigError: its contract does not say, or it has none.
    """
    law = None if contract is None else contract.law
    if law is None:
        raise ConfigError(
            f"{cfg.SECTION}.image_to_image.keep_mean_px needs the amplitude of pixels, which "
            + ("only a contract states, and the model has none" if contract is None else
               "the contract of the model does not state")
            + ": write one with `sarhpc contract MODEL --tiles FOLDER`, or set it to null"
        )  # fmt: skip
    return law


def denoising_steps(steps: int, strength: float) -> int:
    """Steps of the schedule that are carried out at a strength, as the pipelines count them."""
    return min(int(steps * strength), steps)
