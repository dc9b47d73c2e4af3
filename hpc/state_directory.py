"""Where the user's own state is kept that outlives a run."""

from __future__ import annotations

import os
from pathlib import Path

from hpc.errors import ConfigError


def state_directory() -> Path:
    """Directory for state that outlives a run: $SARHPC_STATE, or the XDG state directory.

    Raises:
        ConfigError: neither is set, and this user has no home directory.
    """
    configured = os.environ.get("SARHPC_STATE")
    if configured:
        return Path(configured)
    base = os.environ.get("XDG_STATE_HOME")
    if base:
        return Path(base) / "sarhpc"
    try:
        return Path.home() / ".local" / "state" / "sarhpc"
    except RuntimeError as error:
        raise ConfigError(
            "no home directory for this user: set SARHPC_STATE to a folder"
        ) from error
