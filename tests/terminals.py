"""A command on a terminal of its own, as a person sees it and types at it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

CTRL_C = b"\x03"


class Terminal:
    """`sarhpc WORDS` as the leader of a session with a controlling terminal."""

    def __init__(
        self,
        *words: str | Path,
        columns: int = 80,
        rows: int = 40,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.shown = ""
        self.pid, self._screen = pty.fork()
        if self.pid == 0:
            # Tests started in the background or by nohup inherit signals that are ignored.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            os.environ.update({**(env or {}), "TERM": "xterm", "NO_COLOR": "1"})
            os.execv(sys.executable, [sys.executable, "-m", "sarhpc.cli", *map(str, words)])
        termios.tcsetwinsize(self._screen, (rows, columns))

    @property
    def text(self) -> str:
        """What was shown so far, without control sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.shown).replace("\r", "\n")

    def read_until(self, condition: Callable[[], object], what: str, seconds: float = 180) -> None:
        """Show until `condition`; it fails after some `seconds`."""
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, f"not in {seconds:.0f} s: {what}\n{self.text[-3000:]}"
            if not self._read():
                assert condition(), f"the command has ended before {what}\n{self.text[-3000:]}"

    def read_for(self, text: str, seconds: float = 180) -> None:
        """Show until `text` is there."""
        self.read_until(lambda: text in self.text, text, seconds)

    def type(self, keys: bytes) -> None:
        """Type `keys`."""
        os.write(self._screen, keys)

    def hang_up(self) -> None:
        """Close the terminal, as a lost connection does; the command gets SIGHUP."""
        os.close(self._screen)
        self._screen = -1
        self._reap()

    def exit_code(self, seconds: float = 180) -> int:
        """Show until the command ends; its exit code."""
        until = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < until, f"it does not end:\n{self.text[-3000:]}"
        return self._reap()

    def _read(self) -> bool:
        """Show what has come; False once the command has closed its side."""
        if not select.select([self._screen], [], [], 0.2)[0]:
            return True
        try:
            new = os.read(self._screen, 65536)
        except OSError:
            return False
        self.shown += new.decode(errors="replace")
        return bool(new)

    def _reap(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        self.pid = -1
        return os.waitstatus_to_exitcode(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.pid > 0:
            os.kill(self.pid, signal.SIGKILL)
            self._reap()
        if self._screen >= 0:
            os.close(self._screen)
