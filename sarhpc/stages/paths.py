"""Where a run keeps its data, and how names of models become folders."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from hpc.errors import ConfigError
from hpc.store.rundir import RunDir
from sarhpc.captioning.choice import WRITING
from sarhpc.captioning.config import CaptionSetConfig
from sarhpc.stages.config import RunConfig
from sarhpc.tiling.config import ImportConfig, OpticalConfig

EMBEDDED = "embedded:"
FETCHED = "fetched:"


def data_root(run: RunDir, config: RunConfig) -> Path:
    """Folder of the archive and the shards of the run."""
    return run.root / _expanded(config.data)


def archive_uri(run: RunDir, config: RunConfig) -> str:
    """The archive the run reads: the one named, or the procedural one it wrote.

    Raises:
        ConfigError: neither is configured.
    """
    if config.archive.uri:
        return _expanded(config.archive.uri)
    if config.simulate is None:
        raise ConfigError("no archive: set archive.uri to a catalogue, or simulate.scenes=N")
    return str(data_root(run, config) / "archive")


def import_config(config: ImportConfig) -> ImportConfig:
    """The configuration of an import with `~` and `$VAR` filled in."""
    return dataclasses.replace(config, path=_expanded(config.path))


def optical_config(config: OpticalConfig) -> OpticalConfig:
    """The configuration of optical images with `~` and `$VAR` filled in."""
    uri = None if config.uri is None else _expanded(config.uri)
    return dataclasses.replace(
        config, uri=uri, dem=None if config.dem is None else _expanded(config.dem)
    )


def caption_sets(sets: Iterable[CaptionSetConfig]) -> list[CaptionSetConfig]:
    """The caption sets with `~` and `$VAR` filled in."""
    return [
        dataclasses.replace(
            one,
            path=_expanded(one.path),
            images=None if one.images is None else _expanded(one.images),
        )
        for one in sets
    ]


def _expanded(name: str) -> str:
    return os.path.expandvars(os.path.expanduser(name))


def require_places(run: RunDir, config: RunConfig) -> None:
    """Return if an archive is named and every embedded model used is there.

    Asked before anything is submitted: else a job would tell it hours later.

    Raises:
        ConfigError: one is not, or there are two archives.
    """
    if config.imported is None:
        archive_uri(run, config)
    elif config.simulate is not None or config.archive.uri:
        raise ConfigError(
            f"imported.path={config.imported.path} stands in the place of an archive: leave out "
            "simulate and archive.uri, or imported"
        )
    for name in used_models(config):
        model_folder(name)
    _require_prior(config)


def _require_prior(config: RunConfig) -> None:
    """Return if regularisation images are asked for, made and read alike, or not at all.

    Raises:
        ConfigError: they are made and not trained on, given and made, or neither; or the base
            model is one file, from which nothing is generated.
    """
    asked, made = config.train.prior, config.prior is not None
    if made and (asked is None or asked.shards is not None):
        raise ConfigError(
            "prior: these images are for a training with train.prior={} and without "
            "train.prior.shards; set it so, or leave prior out"
        )
    if asked is not None and asked.shards is None and not made:
        raise ConfigError(
            "train.prior: no regularisation images; name the folder of their shards "
            "(train.prior.shards), or let the base model make some (prior.images=1000)"
        )
    if made and Path(model_folder(config.train.base_model)).is_file():
        raise ConfigError(
            f"prior: {config.train.base_model} is one file, and images are generated from a "
            "diffusers folder; give that, or make the images elsewhere (train.prior.shards)"
        )


def used_models(config: RunConfig) -> list[str]:
    """Names of the models a run starts from: `embedded:NAME` or folders."""
    used: list[str | None] = [config.train.base_model, *config.compare.models.values()]
    if config.caption.captioner in WRITING:
        used.append(config.caption.model)
    if config.caption.clip is not None:
        used.append(config.caption.clip.model)
    if config.caption_train is not None:
        used.append(config.caption_train.base_model)
    return [name for name in used if name is not None]


def embedded_root() -> Path:
    """Folder of the models that ship with the package."""
    return Path(__file__).resolve().parent.parent / "embedded"


def model_folder(name: str) -> str:
    """The folder of a model: `embedded:NAME` ships with the package, `fetched:NAME` is cached.

    In any other name `~` and `$VAR` are expanded.

    Raises:
        ConfigError: there is no embedded model of that name, or it was not fetched.
    """
    if name.startswith(FETCHED):
        return str(_in_cache(name.removeprefix(FETCHED)))
    if not name.startswith(EMBEDDED):
        return _expanded(name)
    folder = embedded_root() / name.removeprefix(EMBEDDED)
    if not folder.is_dir():
        known = sorted(p.name for p in embedded_root().glob("*") if p.is_dir())
        raise ConfigError(f"no embedded model {name!r}; there are: {', '.join(known) or 'none'}")
    return str(folder)


def _in_cache(name: str) -> Path:
    from sarhpc.stages.models import cache_root, model_named

    folder = cache_root() / model_named(name).name
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not there; on a node with network: sarhpc fetch {name}")
    return folder
