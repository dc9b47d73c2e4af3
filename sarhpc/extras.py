"""Packages that only some installations have, and the extra of `sarhpc` that brings each."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from hpc.errors import ConfigError

EXTRA_OF: Mapping[str, str] = {
    "submitit": "slurm",
    "huggingface_hub": "caption",
    "tokenizers": "caption",
    "torch": "caption",
    "transformers": "caption",
    "accelerate": "generate",
    "diffusers": "generate",
    "peft": "generate",
    "resvg_py": "generate",
    "safetensors": "generate",
    "deepspeed": "train",
    "tensorboard": "train",
    "pycocoevalcap": "meteor",
    "torchmetrics": "features",
    "faiss": "search",
    "wandb": "wandb",
}
"""Module -> the smallest extra that brings it."""

CHAIN = ("slurm", "caption", "generate", "train")
"""Each holds the ones before it."""


class MissingExtraError(ConfigError):
    """A part of `sarhpc` is asked for whose packages are not installed."""


def is_installed(extra: str) -> bool:
    """Whether every package of `extra` is installed; none is imported."""
    return not _missing(extra)


def require_extra(extra: str, what: str) -> None:
    """Raise MissingExtraError unless the packages of `extra` are installed.

    Args:
        extra: name of the extra.
        what: what needs it, as the subject of the message.
    """
    missing = _missing(extra)
    if missing:
        raise MissingExtraError(
            f"{what} needs {', '.join(missing)}, not installed: pip install 'sarhpc[{extra}]'"
        )


def missing_extra(error: ModuleNotFoundError) -> MissingExtraError | None:
    """The message in place of a failed import; None for a package of no extra."""
    name = (error.name or "").partition(".")[0]
    if name not in EXTRA_OF:
        return None
    return MissingExtraError(f"{name} is not installed: pip install 'sarhpc[{EXTRA_OF[name]}]'")


def _missing(extra: str) -> list[str]:
    held = CHAIN[: CHAIN.index(extra) + 1] if extra in CHAIN else (extra,)
    names = [module for module, brings in EXTRA_OF.items() if brings in held]
    return [name for name in names if importlib.util.find_spec(name) is None]
