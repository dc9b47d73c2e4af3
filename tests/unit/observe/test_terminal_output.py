"""What a terminal is sent of texts that somebody else wrote."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.observe.terminal import displayable

HOSTILE = "\x1b]0;title\x07 \x1b[2J\x9b5A\x08"
SHOWN = r"\x1b]0;title\x07 \x1b[2J\x9b5A\x08"


@pytest.mark.parametrize("text", ["a\tb\r\n", "\x1b[1;31mred\x1b[0m", "café — 北"])
def test_text_and_colours_stay(text: str) -> None:
    assert displayable(text) == text


def test_control_sequences_are_shown() -> None:
    assert displayable(f"a{HOSTILE}b") == f"a{SHOWN}b"


def test_a_terminal_is_sent_no_control_sequence_of_a_file_name(tmp_path: Path) -> None:
    reading, writing = pty.openpty()
    command = [sys.executable, "-m", "sarhpc.cli", "status", HOSTILE]
    with open(writing, "wb", buffering=0) as terminal:
        subprocess.run(command, cwd=tmp_path, stdout=terminal, stderr=terminal, check=False)
    with open(reading, "rb", buffering=0) as screen:
        said = os.read(screen.fileno(), 1 << 16).decode()
    assert f"sarhpc status: {SHOWN} is not a run directory" in said
    assert "\x1b" not in said
