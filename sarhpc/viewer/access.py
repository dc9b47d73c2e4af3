"""Who may see the pages of a run: holders of the token, which only its user can read.

A loopback port is open to every user of the machine, and to whatever page their browsers show. The
token stands in the path, not in a cookie, which a browser would send to every port of the machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hpc.documents import built, parse_json
from hpc.regular_files import read_regular
from hpc.state_directory import state_directory
from hpc.store.identity import Identity, is_alive, process_identity

LOOPBACK = "127.0.0.1"
NAMES = frozenset({LOOPBACK, "localhost", "::1", "[::1]"})
"""Names by which a browser reaches this machine, through a tunnel too; any port."""
_MAX_BYTES = 1 << 14


@dataclass(frozen=True)
class Address:
    """Where the pages of a run are served."""

    port: int
    token: str
    server: Identity

    @property
    def url(self) -> str:
        """The address to type; who knows it can see the run."""
        return f"http://{LOOPBACK}:{self.port}/{self.token}/"


def is_token(given: str, token: str) -> bool:
    """Whether a request names the token, compared in constant time."""
    return hmac.compare_digest(given.encode(), token.encode())


def is_loopback_name(host: str) -> bool:
    """Whether the header `Host` names this machine.

    A page of another site whose name was made to resolve to 127.0.0.1 names itself.
    """
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdigit():
        name = host
    return name.lower() in NAMES


def served_address(root: Path) -> Address | None:
    """Where a live process of this user on this host serves the run; None if none does."""
    try:
        text = read_regular(_file(root), _MAX_BYTES).decode()
        found = built(Address, parse_json(text))
    except (OSError, ValueError):
        return None
    return found if is_alive(found.server) else None


@contextmanager
def registered(root: Path, port: int) -> Iterator[Address]:
    """A new token, in a file that this user alone can read, until the block ends."""
    server = process_identity(os.getpid())
    assert server is not None
    address = Address(port, secrets.token_urlsafe(32), server)
    file = _file(root)
    _publish(file, json.dumps(dataclasses.asdict(address)))
    try:
        yield address
    finally:
        # Another server of the same run may have taken its place.
        if served_address(root) == address:
            with suppress(OSError):
                file.unlink()


def _publish(file: Path, text: str) -> None:
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)
    os.replace(temporary, file)


def _file(root: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:24]
    return _folder() / f"view-{digest}-{os.uname().nodename}.json"


def _folder() -> Path:
    """The user's runtime directory, or where there is none that of the user's state."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and _is_private(Path(runtime)):
        folder = Path(runtime) / "sarhpc"
    else:
        folder = state_directory() / "view"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    return folder


def _is_private(folder: Path) -> bool:
    try:
        found = folder.stat()
    except OSError:
        return False
    private = not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and private
