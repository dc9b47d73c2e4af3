"""Where a run keeps its data, and how names of models become folders."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from hpc.errors import ConfigError
from hpc.store.rundir import RunDir
from sarhpc.captioning.config import CaptionSetConfig
from sarhpc.stages.config import RunConfig
from sarhpc.tiling.config import ImportConfig, OpticalConfig

EMBEDDED = "embedded:"
FETCHED = "fetched:"


def data_root(run: RunDir, config: RunConfig) -> Path:
    """Folder of the archive and the shards of the run."""
    return run.root / expanded(config.data)


def archive_uri(run: RunDir, config: RunConfig) -> str:
    """The archive the run reads: the one named, or the procedural one it wrote.

    Raises:
        ConfigError: neither is configured.
    """
    if config.archive.uri:
        return expanded(config.archive.uri)
    if config.simulate is None:
        raise ConfigError("no archive: set archive.uri to a catalogue, or simulate.scenes=N")
    return str(data_root(run, config) / "archive")


def import_config(config: ImportConfig) -> ImportConfig:
    """The configuration of an import with `~` and `$VAR` filled in."""
    return dataclasses.replace(config, path=expanded(config.path))


def optical_config(config: OpticalConfig) -> OpticalConfig:
    """The configuration of optical images with `~` and `$VAR` filled in."""
    uri = None if config.uri is None else expanded(config.uri)
    return dataclasses.replace(
        config, uri=uri, dem=None if config.dem is None else expanded(config.dem)
    )


def caption_sets(sets: Iterable[CaptionSetConfig]) -> list[CaptionSetConfig]:
    """The caption sets with `~` and `$VAR` filled in."""
    return [
        dataclasses.replace(
            one,
            path=expanded(one.path),
            images=None if one.images is None else expanded(one.images),
        )
        for one in sets
    ]


def expanded(name: str) -> str:
    """The name with `~` and `$VAR` filled in."""
    return os.path.expandvars(os.path.expanduser(name))


def require_out(out: Path, only_read: Iterable[Path]) -> None:
    """Raise ConfigError unless a result can lie in the folder `out`, new or the same again.

    Raises:
        ConfigError: it is a file, or inside of a folder that is only read.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(
            f"--out {out} is a file; give a folder, which is made where there is none"
        )
    for path in only_read:
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise ConfigError(f"--out {out} is inside {path}, which is only read; give another")


def embedded_root() -> Path:
    """Folder of the models that ship with the package."""
    return Path(__file__).resolve().parents[2] / "embedded"


def model_folder(name: str) -> str:
    """The folder of a model: `embedded:NAME` ships with the package, `fetched:NAME` is cached.

    In any other name `~` and `$VAR` are expanded.

    Raises:
        ConfigError: there is no embedded model of that name, or it was not fetched.
    """
    if name.startswith(FETCHED):
        return str(_in_cache(name.removeprefix(FETCHED)))
    if not name.startswith(EMBEDDED):
        return expanded(name)
    folder = embedded_root() / name.removeprefix(EMBEDDED)
    if not folder.is_dir():
        known = sorted(p.name for p in embedded_root().glob("*") if p.is_dir())
        raise ConfigError(f"no embedded model {name!r}; there are: {', '.join(known) or 'none'}")
    return str(folder)


def _in_cache(name: str) -> Path:
    from sarhpc.stages.inputs.base_models import cache_root, model_named

    folder = cache_root() / model_named(name).name
    if not folder.is_dir():
        raise ConfigError(f"{folder} does not exist; on a node with network: sarhpc fetch {name}")
    return folder
