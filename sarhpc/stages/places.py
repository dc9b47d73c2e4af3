"""Where a run keeps its data, and how names of models become folders."""

from __future__ import annotations

import os
from pathlib import Path

from hpc.errors import ConfigError
from hpc.run.rundir import RunDir
from sarhpc.stages.config import RunConfig

EMBEDDED = "embedded:"


def data_root(run: RunDir, config: RunConfig) -> Path:
    """Folder of the archive and the shards of the run."""
    return run.root / config.data


def archive_uri(run: RunDir, config: RunConfig) -> str:
    """The archive the run reads: the one named, or the procedural one it wrote.

    Raises:
        ConfigError: neither is configured.
    """
    if config.archive.uri:
        return config.archive.uri
    if config.simulate is None:
        raise ConfigError("no archive: set archive.uri to a catalogue, or simulate.scenes=N")
    return str(data_root(run, config) / "archive")


def embedded_root() -> Path:
    """Folder of the models that ship with the package."""
    return Path(__file__).resolve().parent.parent / "embedded"


def model_folder(name: str) -> str:
    """The folder of a model: `embedded:NAME` ships with the package, `~` and `$VAR` are expanded.

    Raises:
        ConfigError: there is no embedded model of that name.
    """
    if not name.startswith(EMBEDDED):
        return os.path.expandvars(os.path.expanduser(name))
    folder = embedded_root() / name.removeprefix(EMBEDDED)
    if not folder.is_dir():
        known = sorted(p.name for p in embedded_root().glob("*") if p.is_dir())
        raise ConfigError(f"no embedded model {name!r}; there are: {', '.join(known) or 'none'}")
    return str(folder)
