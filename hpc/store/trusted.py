"""What the user has declared safe although others can write there, as git's `safe.directory`.

One file in the user's own state directory. An entry holds a path and its owner at the time: a
directory that another user puts in its place has to be declared again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from hpc.errors import ConfigError
from hpc.permissions import other_writers
from hpc.publish import publish_json
from hpc.state_directory import state_directory

SCHEMA = "sarhpc.trusted/1"


def trusted_file() -> Path:
    """The list of what is trusted."""
    return state_directory() / "trusted.json"


def trusted_paths() -> dict[str, int]:
    """Path -> user id of its owner when it was declared.

    Raises:
        ConfigError: others can write the list, or it is none.
    """
    file = trusted_file()
    try:
        status = file.stat()
        document = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}; remove it to begin anew") from error
    writers = other_writers(status, owners=(os.geteuid(),))
    if writers is not None or document.get("schema") != SCHEMA:
        why = f"{writers}" if writers is not None else f"is not of schema {SCHEMA}"
        raise ConfigError(f"{file} {why}: it is ignored; remove it to begin anew")
    return {str(path): int(owner) for path, owner in document["paths"].items()}


def is_trusted(path: Path) -> bool:
    """Whether `path`, with the owner it has now, was declared safe."""
    owner = trusted_paths().get(str(path.resolve()))
    return owner is not None and owner == path.stat().st_uid


def trust(path: Path) -> None:
    """Declare `path` safe, with everything in it if it is a run."""
    resolved = path.resolve()
    _publish({**trusted_paths(), str(resolved): resolved.stat().st_uid})


def revoke_trust(path: Path) -> bool:
    """Take the declaration back; whether there was one."""
    paths = trusted_paths()
    if paths.pop(str(path.resolve()), None) is None:
        return False
    _publish(paths)
    return True


def _publish(paths: Mapping[str, int]) -> None:
    before = os.umask(0o077)
    try:
        publish_json(trusted_file(), {"schema": SCHEMA, "paths": dict(paths)})
    finally:
        os.umask(before)
