"""Reading files that anybody may have put where a document belongs: only regular ones, bounded.

Opening a named pipe waits for a writer, and a device may never end: `status` of a run in a shared
folder must do neither.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 4 << 30
"""Size of a document that is read whole; a plan of ten million tiles has 1 GB."""


class NotRegularFileError(OSError, ValueError):
    """The path is a pipe, a device, a socket or a directory, or the file is too large."""


def open_regular(path: Path, buffering: int = -1, most: int | None = None) -> BinaryIO:
    """The file at `path`, opened for reading without waiting; links are followed.

    Raises:
        NotRegularFileError: it is no regular file, or has more than `most` bytes.
        OSError: it cannot be opened.
    """
    file: BinaryIO = open(path, "rb", buffering=buffering, opener=_open_at_once)  # noqa: SIM115
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and (most is None or status.st_size <= most):
        return file
    file.close()
    if stat.S_ISREG(status.st_mode):
        raise NotRegularFileError(f"{path} has {status.st_size:,} bytes, more than {most:,}")
    raise NotRegularFileError(f"{path} is not a regular file; remove it")


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def read_regular(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of the file at `path`.

    Raises:
        NotRegularFileError: it is no regular file, or has more than `most` bytes.
        OSError: it cannot be read.
    """
    with open_regular(path, most=most) as file:
        return file.read()


def read_regular_text(path: Path, errors: str = "strict", encoding: str = "utf-8") -> str:
    """The text in the file at `path`, as `read_regular`, with Unix line ends.

    Raises:
        UnicodeDecodeError: it is no text, and `errors` is strict.
    """
    text = read_regular(path).decode(encoding, errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")
