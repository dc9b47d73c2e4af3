"""Configuration of the evaluation of images against their captions (E10)."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpc.errors import ConfigError

LAND_COVER = {
    "water": ["a lake", "a river", "a pond", "open water", "calm water"],
    "forest": ["a forest", "a dense forest", "an open forest", "a wood", "trees"],
    "field": [
        "a field",
        "crop fields",
        "farmland",
        "a grass field",
        "meadow fields",
        "a bare field",
        "ploughed fields",
        "a vineyard field",
    ],
    "town": [
        "a town",
        "a dense town",
        "houses",
        "a village",
        "buildings",
        "streets",
        "an industrial area",
    ],
}
"""Classes by the phrases that name them."""


@dataclass
class TextConfig:
    """A CLIP that reads images and their captions."""

    model: str | None = None
    """CLIP that reads both: a folder, `embedded:NAME` or `fetched:NAME`; null takes the one that
    the stage `clip-train` of the run made."""
    among: int = 10
    """Captions that the caption of an image is searched among, its own included."""
    classes: dict[str, list[str]] = field(
        default_factory=lambda: {k: [*v] for k, v in LAND_COVER.items()}
    )
    """Class -> phrases that name it in captions. An image is recognised as the class whose captions
    are nearest to it on average."""
    batch: int = 64
    """Images per forward pass."""
    threads: int = 1
    """CPU threads of the CLIP."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto` for CUDA where there is one."""


def check_text(cfg: TextConfig) -> None:
    """Raise ConfigError unless images can be compared with captions so.

    Raises:
        ConfigError: names the field, its value and the values that work.
    """
    for name, least in {"among": 2, "batch": 1, "threads": 1}.items():
        if getattr(cfg, name) < least:
            raise ConfigError(f"evaluate.text.{name}={getattr(cfg, name)}: give at least {least}")
    if len(cfg.classes) < 2 or not all(cfg.classes.values()):
        raise ConfigError(
            f"evaluate.text.classes={dict(cfg.classes)}: give two classes or more, each with the "
            "phrases that name it: {water: [a lake, a river], forest: [a forest]}"
        )
