"""The frozen configuration of a run, and which part of it decides what each stage makes."""

from __future__ import annotations

import functools
import hashlib
import json

from hpc.config import changes_since, decisive, loads
from hpc.errors import FingerprintMismatchError
from hpc.store.rundir import RunDir
from sarhpc.stages.config import RunConfig

BRANCHES = {
    "simulate": ["simulate"],
    "tile": ["archive", "tile", "imported"],
    "optical": ["optical"],
    "caption-train": ["caption_train"],
    "caption": ["caption"],
    "encode": ["encode"],
    "prior": ["prior"],
    "train": ["train"],
    "export": ["export"],
    "generate": ["generate"],
    "compare": ["compare", "generate"],
    "evaluate": ["evaluate"],
}
"""Stage -> branches of the configuration that decide what it makes."""


@functools.lru_cache(maxsize=8)
def _parsed(text: str, source: str) -> RunConfig:
    return loads(RunConfig, text, source=source)


def load_run_config(run: RunDir) -> RunConfig:
    """The frozen configuration of a run.

    Raises:
        FingerprintMismatchError: someone edited what decides what the run makes.
    """
    config = _parsed(run.config_file.read_text(), str(run.config_file))
    changes = changes_since(run.info.get("config", {}), config)
    if changes:
        raise FingerprintMismatchError(
            f"{run.config_file} was edited since the run was frozen: {'; '.join(changes[:5])}; "
            "put the old values back, or start a new run directory with the new ones"
        )
    return config


def stage_fingerprint(config: RunConfig, stage: str) -> str:
    """Sixteen hex digits over the branches of the configuration that `stage` depends on."""
    plain = decisive(config)
    text = json.dumps({b: plain[b] for b in BRANCHES[stage] if b in plain}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
