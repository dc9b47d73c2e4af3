"""Which adapters a configuration chooses: files, weights, digests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.errors import ConfigError, DataError, VerificationError
from sarhpc.diffusion.config import LORA_FILE, LYCORIS_FILE
from sarhpc.generation.adapters.config import AppliedAdapterConfig
from sarhpc.generation.config import GenerateConfig

_FILES = (LORA_FILE, LYCORIS_FILE)


@dataclass(frozen=True)
class ChosenAdapter:
    """An adapter that is there, and the scale of its update."""

    file: Path
    weight: float

    def sha256(self) -> str:
        """Digest of the file."""
        with self.file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()


def check_adapters(cfg: GenerateConfig) -> None:
    """Raise ConfigError unless the settings of adapters can stand together.

    Raises:
        ConfigError: one adapter and a list of them, or one of the list twice.
    """
    at, paths = cfg.SECTION, [one.path for one in cfg.adapters]
    if not paths:
        return
    for name, unset in (("adapter", None), ("adapter_weight", 1.0)):
        if getattr(cfg, name) != unset:
            raise ConfigError(
                f"{at}.{name} with {at}.adapters: give every adapter and its weight in "
                f"{at}.adapters, as {{path: FILE, weight: 0.5}}; the path null is the adapter in "
                "the model's folder."
            )
    for path in paths:
        if paths.count(path) > 1:
            named = "null" if path is None else path
            raise ConfigError(f"{at}.adapters names {named} twice: give it one weight.")


def chosen_adapters(model: Path, cfg: GenerateConfig) -> list[ChosenAdapter]:
    """The adapters of `cfg`, in order; without any the one in folder `model`, if there is one.

    Raises:
        ConfigError: a weight is set without an adapter.
        DataError: an adapter named by `cfg` is not there.
    """
    if cfg.adapters or cfg.adapter is not None:
        return [
            _own(one, model, cfg) if one.path is None else _named(one, cfg) for one in _asked(cfg)
        ]
    own = _file_in(model)
    if own is not None:
        return [ChosenAdapter(own, cfg.adapter_weight)]
    if cfg.adapter_weight != 1.0:
        raise ConfigError(
            f"{cfg.SECTION}.adapter_weight={cfg.adapter_weight} but {model} has no adapter "
            f"({' or '.join(_FILES)}): set {cfg.SECTION}.adapter, or leave the weight at 1."
        )
    return []


def named_adapters(cfg: GenerateConfig) -> list[ChosenAdapter]:
    """The adapters that `cfg` names by a path, whichever the model.

    Raises:
        DataError: one is not there.
    """
    return [_named(one, cfg) for one in _asked(cfg) if one.path is not None]


def planned_adapters(model: Path, cfg: GenerateConfig) -> dict[str, Any]:
    """Digests and weights of the adapters that `cfg` names, for the plan of the images.

    One in the model's folder that is applied without being named is in the model's digest.

    Raises:
        DataError: an adapter named by `cfg` is not there.
    """
    if cfg.adapters:
        chosen = chosen_adapters(model, cfg)
        return {"adapters": [{"sha256": one.sha256(), "weight": one.weight} for one in chosen]}
    if cfg.adapter is None:
        return {}
    [named] = chosen_adapters(model, cfg)
    return {"adapter_sha": named.sha256()}


def require_planned(inputs: Mapping[str, Any], model: Path, cfg: GenerateConfig) -> None:
    """Raise VerificationError if an adapter is not the one that the images were planned with.

    Args:
        inputs: of the planned shard.
        model: folder of the model.
        cfg: of the corpus.

    Raises:
        VerificationError: a file changed since.
        DataError: it is gone.
    """
    if not {"adapters", "adapter_sha"} & inputs.keys():
        return
    found = planned_adapters(model, cfg)
    if any(inputs.get(key) != value for key, value in found.items()):
        names = ", ".join(str(one.file) for one in chosen_adapters(model, cfg))
        raise VerificationError(
            f"an adapter changed since the corpus was planned ({names}): restore it, or make a "
            "new run with the other one."
        )


def adapter_facts(inputs: Mapping[str, Any], cfg: GenerateConfig) -> dict[str, Any]:
    """What the metadata of an image says of adapters; nothing if it is the model's own as it is."""
    planned = {key: inputs[key] for key in ("adapters", "adapter_sha") if key in inputs}
    weight = {"adapter_weight": cfg.adapter_weight} if cfg.adapter_weight != 1.0 else {}
    return planned | weight


def _asked(cfg: GenerateConfig) -> list[AppliedAdapterConfig]:
    """The adapters that `cfg` lists, or the one that it names."""
    one = [] if cfg.adapter is None else [AppliedAdapterConfig(cfg.adapter, cfg.adapter_weight)]
    return [*cfg.adapters] or one


def _key(cfg: GenerateConfig) -> str:
    return f"{cfg.SECTION}.{'adapters' if cfg.adapters else 'adapter'}"


def _own(one: AppliedAdapterConfig, model: Path, cfg: GenerateConfig) -> ChosenAdapter:
    file = _file_in(model)
    if file is None:
        raise DataError(
            f"{_key(cfg)}: {model} has no adapter ({' or '.join(_FILES)}), which the path null "
            "means: name a file."
        )
    return ChosenAdapter(file, one.weight)


def _named(one: AppliedAdapterConfig, cfg: GenerateConfig) -> ChosenAdapter:
    named = Path(str(one.path))
    file = _file_in(named) if named.is_dir() else named
    if file is None or not file.is_file():
        raise DataError(f"no adapter at {named}: set {_key(cfg)} to its file or folder.")
    return ChosenAdapter(file, one.weight)


def _file_in(folder: Path) -> Path | None:
    return next((folder / name for name in _FILES if (folder / name).is_file()), None)
