"""Text of files on a terminal: control sequences in it are shown and do nothing.

A log, a file name or a message may have been written by anybody, and a terminal obeys what it is
sent: it moves the cursor, hides text, sets titles and clipboards. Colours are left.
"""

from __future__ import annotations

import re
from typing import Any, TextIO, cast

_OBEYED = re.compile(r"(\x1b\[[0-9;]*m)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def displayable(text: str) -> str:
    r"""`text` with `\x1b` and so on for control characters; lines, tabs and colours stay."""
    return _OBEYED.sub(lambda found: found[1] or f"\\x{ord(found[0]):02x}", text)


class DisplayStream:
    """A stream to a terminal that writes what is `displayable`; in all else the given stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text`; the number of its characters."""
        self._stream.write(displayable(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write all `lines`."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def display_stream(stream: TextIO) -> TextIO:
    """`stream`, or if it is a terminal a `DisplayStream` to it."""
    return cast("TextIO", DisplayStream(stream)) if stream.isatty() else stream
