"""Clocks: which one a comparison is made by.

Durations are measured by `time.monotonic`, which nobody sets. A moment that other nodes have
written down is compared with the time of the file system they share, since the clock of a node may
be minutes off and may jump.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def file_system_time(directory: Path) -> float:
    """Time now by the clock that dates the files in `directory`, s since the epoch.

    On NFS that is the server's clock: as for a heartbeat, no time is sent along.

    Raises:
        OSError: no file can be made there.
    """
    # A killed process leaves a temporary file like any other, which is cleaned up with them.
    probe = directory / f".clock.{secrets.token_hex(6)}.tmp"
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(probe)
