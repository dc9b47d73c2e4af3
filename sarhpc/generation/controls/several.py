"""The layers of several ControlNets for each image, as arguments of a pipeline and as metadata."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sarhpc.generation.controls.config import ControlInputConfig, SteerConfig
from sarhpc.generation.steering import LayerSource, SteeringLayer
from sarhpc.shards.transfer import to_device


def controls_of(cfg: SteerConfig) -> tuple[ControlInputConfig, ...]:
    """The first control and the further ones, in the order of their ControlNets."""
    return (cfg, *cfg.further)


class SeveralLayers:
    """The layers of several controls, by number; captions are those of the first."""

    def __init__(self, sources: Sequence[LayerSource]) -> None:
        self._first, *self._further = sources

    def __len__(self) -> int:
        return len(self._first)

    def caption(self, number: int) -> str:
        """Scene description that comes with the first control's layer.

        Raises:
            DataError: it has none.
        """
        return self._first.caption(number)

    def members(self, number: int) -> dict[str, bytes]:
        """The layers for image `number`; of two of a kind, that of the earlier control."""
        found: dict[str, bytes] = {}
        for source in (self._first, *self._further):
            found = source.members(number) | found
        return found

    def load(self, number: int) -> SteeringLayer:
        """The first control's layer for image `number`, with those of the further ones.

        Raises:
            DataError: a layer is missing or of no use.
        """
        further = tuple(source.load(number) for source in self._further)
        return dataclasses.replace(self._first.load(number), further=further)


def steering_facts(steer: SteeringLayer, cfg: SteerConfig) -> dict[str, Any]:
    """Metadata of an image about its conditioning layers."""
    further = [_facts(*pair) for pair in zip(steer.further, cfg.further, strict=True)]
    return _facts(steer, cfg) | ({"further": further} if further else {})


def _facts(steer: SteeringLayer, cfg: ControlInputConfig) -> dict[str, Any]:
    return {
        "layer": cfg.layer,
        "scale": cfg.scale,
        "drawing" if steer.drawn else "tile": steer.key,
        "sha256": steer.sha256,
        # At their defaults they are not recorded, which keeps older bytes.
        **({"start": cfg.start} if cfg.start != 0 else {}),
        **({"end": cfg.end} if cfg.end != 1 else {}),
    }


def steering_arguments(
    steers: Sequence[SteeringLayer], cfg: SteerConfig, batch: int, device: torch.device
) -> dict[str, Any]:
    """The pipeline's arguments for the layers of a batch, padded to `batch` images."""
    rows = [(steer, *steer.further) for steer in steers]
    rows += rows[-1:] * (batch - len(rows))
    stacked = [
        torch.from_numpy(np.stack([steer.layer for steer in column])).permute(0, 3, 1, 2)
        for column in zip(*rows, strict=True)
    ]
    images, controls = to_device(stacked, device), controls_of(cfg)
    values: dict[str, list[Any]] = {
        "image": list(images),
        "controlnet_conditioning_scale": [control.scale for control in controls],
    }
    if any((control.start, control.end) != (0, 1) for control in controls):
        values["control_guidance_start"] = [control.start for control in controls]
        values["control_guidance_end"] = [control.end for control in controls]
    return values if cfg.further else {name: value for name, [value] in values.items()}
