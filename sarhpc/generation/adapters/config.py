"""Configuration of the adapters that are applied together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class AppliedAdapterConfig:
    """One of several adapters, and how strongly it is applied."""

    path: str | None = None
    """Its file, or the folder of it; null: the one in the model's folder."""
    weight: float = 1.0
    """Scale of its update; 0 leaves it off."""
