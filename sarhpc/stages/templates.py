"""The configurations that ship with the package, by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from hpc.errors import ConfigError


def configurations() -> Path:
    """Folder of the configurations that ship with the package."""
    return Path(__file__).resolve().parents[1] / "configs"


def template_names() -> list[str]:
    """Names of the configurations of whole runs."""
    return sorted(path.stem for path in configurations().glob("*.yaml"))


def template(name: str) -> Path:
    """The configuration of that name.

    Raises:
        ConfigError: none of that name ships with the package; names the nearest.
    """
    known = template_names()
    if name not in known:
        near = difflib.get_close_matches(name, known) or known
        raise ConfigError(f"no template {name!r}; there is {', '.join(near)}")
    return configurations() / f"{name}.yaml"
