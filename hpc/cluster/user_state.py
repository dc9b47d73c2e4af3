"""State of a user on a cluster, which compute and login nodes share and which outlives a run."""

from __future__ import annotations

import os
from pathlib import Path


def state_directory() -> Path:
    """Directory for state that outlives a run: $SARHPC_STATE, or the XDG state directory."""
    configured = os.environ.get("SARHPC_STATE")
    if configured:
        return Path(configured)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "sarhpc"
