"""The commands that README and docs print, as a user would copy them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = (CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md")))
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"(?:^ {4}.*\n)+", re.MULTILINE)
_LAUNCHER = re.compile(r"^(?:\.venv/bin/)?sarhpc ")
_INLINE = re.compile(r"`sarhpc ([^`]+)`")


@dataclass(frozen=True)
class Command:
    """One command of a page."""

    page: str
    words: tuple[str, ...]
    """Without the name of the program."""

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def printed_commands() -> list[Command]:
    """The commands in code blocks, each once a page; lines that end in a backslash are joined."""
    found = []
    for page in PAGES:
        for line in _lines(page.read_text()):
            if _LAUNCHER.match(line):
                words = shlex.split(line, comments=True)[1:]
                found.append(Command(page.relative_to(CHECKOUT).as_posix(), tuple(words)))
    return list(dict.fromkeys(found))


def mentioned_commands() -> list[Command]:
    """What the running text calls a command, which may leave arguments out."""
    found = [
        Command(page.relative_to(CHECKOUT).as_posix(), tuple(text.split()))
        for page in PAGES
        for text in _INLINE.findall(page.read_text())
    ]
    return list(dict.fromkeys(found))


def _lines(text: str) -> Iterator[str]:
    blocks = [
        block for kind, block in _FENCE.findall(text) if kind in ("", "bash", "console", "sh")
    ]
    blocks += _INDENTED.findall(_FENCE.sub("", text))
    for block in blocks:
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            yield line.strip()
