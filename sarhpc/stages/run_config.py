"""The frozen configuration of a run."""

from __future__ import annotations

import functools
import platform
from typing import Any

from hpc.config import changes_since, fingerprint, loads, to_dict
from hpc.errors import FingerprintMismatchError, VerificationError
from hpc.store.rundir import PreviewedRun, RunDir
from sarhpc import __version__
from sarhpc.stages.config import RunConfig


@functools.lru_cache(maxsize=8)
def _parsed(text: str, source: str) -> RunConfig:
    return loads(RunConfig, text, source=source, origin="frozen")


def load_run_config(run: RunDir) -> RunConfig:
    """The configuration of a run; of one that has not begun as its file says it now.

    Raises:
        FingerprintMismatchError: the run has begun, and someone edited what decides what it makes.
    """
    config = _parsed(run.config_text, str(run.config_file))
    frozen = run.info.get("config", {})
    if not isinstance(frozen, dict):
        raise VerificationError(f"{run.root / 'run.json'} does not describe a run; restore it")
    changes = changes_since(frozen, config)
    if changes and run.begun:
        raise FingerprintMismatchError(
            f"{run.config_file} was edited since the run was frozen: {'; '.join(changes[:5])}; "
            "put the old values back, or start a new run directory with the new ones"
        )
    return config


def facts_of(config: RunConfig) -> dict[str, Any]:
    """What `run.json` says of a configuration and of what froze it."""
    return {
        "version": __version__,
        "platform": platform.platform(),
        "config": to_dict(config, transient=False),
    }


def with_edits(run: RunDir) -> RunDir:
    """The run as `freeze` brings `run.json` up to a draft that was edited by hand; else itself."""
    config = load_run_config(run)
    frozen = run.info.get("config", {})
    if run.begun or not changes_since(frozen, config):
        return run
    facts = {**run.info, **facts_of(config), "fingerprint": fingerprint(config)}
    words = run.root / "overrides.txt"
    before = words.read_text().splitlines() if words.exists() else []
    return PreviewedRun(run.root, run.config_text, facts, tuple(before))
