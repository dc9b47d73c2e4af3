"""Finding and reading files that anybody may have put there: only regular ones, bounded.

Opening a named pipe waits for a writer, and a device may never end: `status` of a run in a shared
folder must do neither.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections import deque
from collections.abc import Iterator, MutableMapping
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


_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decoded_text(data: bytes) -> str:
    """The text in `data`: UTF-8, or what a byte order mark at its start says; without the mark.

    Editors and shells of Windows write UTF-8 with the mark, and UTF-16.

    Raises:
        UnicodeDecodeError: it is in another encoding, such as Latin-1.
    """
    return data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig")


def files_under(folder: Path, unread: MutableMapping[Path, str] | None = None) -> Iterator[Path]:
    """Yield all files below `folder` but hidden ones and those in hidden folders.

    Links to folders are followed. A folder that is reached in several ways, a loop of links among
    them, is entered once, and by a way without links if there is one. Links that lead nowhere are
    yielded as files: opening them says what is wrong.

    Args:
        folder: the root; may be a link itself.
        unread: takes folders that may not be read, with the reason; None passes over them.
    """
    entered: set[tuple[int, int]] = set()
    folders, links = deque([folder]), deque[Path]()
    while folders or links:
        here = folders.popleft() if folders else links.popleft()
        try:
            found = here.stat()
            if (found.st_dev, found.st_ino) in entered:
                continue
            entered.add((found.st_dev, found.st_ino))
            with os.scandir(here) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if unread is not None:
                unread[here] = f"the folder cannot be read ({error.strerror or error})"
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                yield here / entry.name
            elif entry.is_symlink():
                links.append(here / entry.name)
            else:
                folders.append(here / entry.name)
