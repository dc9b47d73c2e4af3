"""Configuration of ControlNets at generation: what each reads, how strongly, and when."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ControlInputConfig:
    """One ControlNet, and the conditioning layers that it reads, one per image."""

    shards: str | None = None
    """Folder of the shards with the layers, searched recursively; null takes the held-out tiles of
    the run. Images use the samples in turn, and their captions if no prompts are given."""
    layer: str = "edges"
    """The layer: `edges`, `segmentation`, `optical`, `coarse` or `other`, the one that the
    ControlNet was trained on."""
    scale: float = 1.0
    """Weight of the ControlNet's contribution; 0 disables it."""
    sketch: str | None = field(default=None, metadata={"added": True})
    """Drawings instead of shards, for `edges`: a `.png` or `.svg` file or a folder of them, used in
    turn in the order of their names. They have no captions, so prompts must be given."""
    start: float = field(default=0.0, metadata={"added": True})
    """Share of the denoising steps before the ControlNet begins to contribute."""
    end: float = field(default=1.0, metadata={"added": True})
    """Share of the denoising steps after which it no longer contributes; more than `start`."""
    model: str | None = field(default=None, metadata={"added": True})
    """Exported model with the ControlNet, or the ControlNet's own folder; null takes the one in the
    generating model."""


@dataclass
class SteerConfig(ControlInputConfig):
    """ControlNets with their conditioning layers: one, and further ones beside it."""

    further: list[ControlInputConfig] = field(default_factory=list, metadata={"added": True})
    """Further ControlNets of the same U-Net, each with its `model`; contributions add up."""
