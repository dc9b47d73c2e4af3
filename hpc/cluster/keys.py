"""Secret keys: of a run, in its directory, and of a user, in the user's state directory.

A run's key proves what belongs to the run: its ranks to each other, its checkpoints to its jobs. It
is a file of mode 0600, so that whoever may write into the run, or reads the network, does not hold
it. The user's state directory remembers which runs' keys this user made: a run that came from
elsewhere brings a key that is not among them.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import stat
from pathlib import Path

from hpc.errors import ConfigError
from hpc.state_directory import state_directory

KEY_FILE = ".key"
_BYTES = 32


def run_key(root: Path) -> bytes:
    """The key of the run at `root`; made, and remembered as this user's, if there is none.

    Raises:
        ConfigError: the key file is not this user's alone.
    """
    path = root / KEY_FILE
    key = _read(path)
    if key is None:
        key = _create(path)
        remember_key(key)
    return key


def read_run_key(root: Path) -> bytes | None:
    """The key of the run at `root`; None if there is none yet.

    Raises:
        ConfigError: the key file is not this user's alone.
    """
    return _read(root / KEY_FILE)


def replace_run_key(root: Path) -> bytes:
    """A new key of the run at `root`, in place of one that others may know."""
    path = root / KEY_FILE
    path.unlink(missing_ok=True)
    return run_key(root)


def key_time(root: Path) -> float:
    """When the key of the run at `root` was made, by the clock of its file system, s."""
    return (root / KEY_FILE).lstat().st_mtime


def user_key() -> bytes:
    """The key of this user, for ranks that belong to no run; made if there is none.

    Raises:
        ConfigError: the key file is not this user's alone.
    """
    path = state_directory() / "key"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return _read(path) or _create(path)


def derive_key(key: bytes, purpose: str) -> bytes:
    """A key for one purpose, from which `key` cannot be computed."""
    return hmac.digest(key, purpose.encode(), "sha256")


def remember_key(key: bytes) -> None:
    """Note that `key` is one of this user's; nothing where the state directory cannot be written.

    A compute node may have no home directory; the verbs, which read the note, run where it is.
    """
    with contextlib.suppress(OSError):
        path = _note(key)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)


def is_own_key(key: bytes) -> bool:
    """Whether this user made `key`, or declared it trusted, on a machine with this home."""
    return _note(key).exists()


def _note(key: bytes) -> Path:
    return state_directory() / "run_keys" / hashlib.sha256(key).hexdigest()[:32]


def _read(path: Path) -> bytes | None:
    try:
        # Opening a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"the key {path} cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or mode & 0o077:
            raise ConfigError(
                f"the key {path} is of user {found.st_uid} with mode {mode:04o}, not a file that "
                f"only you (user {os.geteuid()}) can read, so others may know it. If the run and "
                "its checkpoints are your own, `sarhpc resume RUN --trust-checkpoint` makes a new "
                "one"
            )
        key = file.read()
    if len(key) != _BYTES:
        raise ConfigError(
            f"the key {path} has {len(key)} bytes, not {_BYTES}. If the run and its checkpoints "
            "are your own, `sarhpc resume RUN --trust-checkpoint` makes a new one"
        )
    return key


def _create(path: Path) -> bytes:
    """A new key at `path`, or the one that another process has put there meanwhile."""
    import secrets

    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, never replaces the key of another process.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)
    key = _read(path)
    assert key is not None, f"{path} was removed while it was made"
    return key
