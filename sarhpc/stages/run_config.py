"""The frozen configuration of a run."""

from __future__ import annotations

import functools

from hpc.config import changes_since, loads
from hpc.errors import FingerprintMismatchError, VerificationError
from hpc.store.rundir import RunDir
from sarhpc.stages.config import RunConfig


@functools.lru_cache(maxsize=8)
def _parsed(text: str, source: str) -> RunConfig:
    return loads(RunConfig, text, source=source, origin="frozen")


def load_run_config(run: RunDir) -> RunConfig:
    """The frozen configuration of a run.

    Raises:
        FingerprintMismatchError: someone edited what decides what the run makes.
    """
    config = _parsed(run.config_text, str(run.config_file))
    frozen = run.info.get("config", {})
    if not isinstance(frozen, dict):
        raise VerificationError(f"{run.root / 'run.json'} does not describe a run; restore it")
    changes = changes_since(frozen, config)
    if changes:
        raise FingerprintMismatchError(
            f"{run.config_file} was edited since the run was frozen: {'; '.join(changes[:5])}; "
            "put the old values back, or start a new run directory with the new ones"
        )
    return config
