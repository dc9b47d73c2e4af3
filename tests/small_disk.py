"""A disk of a few kilobytes, to be filled."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs at `folder`, which other processes see; skips the test where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount here")
    if done.returncode:
        pytest.skip(f"this user may not mount a small disk: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        # Lazily: a process that a test left there must not keep the others from running.
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def shared_disk(folder: Path, size_mb: int, processes: Iterable[int]) -> Iterator[Path]:
    """An ext4 disk at `folder`, here and in the mount namespaces of `processes`.

    Skips the test where none can be mounted.
    """
    folder.mkdir()
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(size_mb << 20)
    namespaces = [[], *(["nsenter", "-t", str(pid), "-m"] for pid in processes)]
    with contextlib.ExitStack() as undo:
        try:
            _run("mkfs.ext4", "-q", "-m", "0", str(image))
            device = _run("losetup", "-f", "--show", str(image))
            undo.callback(_run, "losetup", "-d", device)
            for enter in namespaces:
                _run(*enter, "mount", device, str(folder))
                undo.callback(_run, *enter, "umount", "-l", str(folder))
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            pytest.skip(f"this user may not mount a small disk: {error}")
        yield folder


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def fill(folder: Path, leave_bytes: int = 0) -> Path:
    """A new file that takes all the space at `folder` but `leave_bytes`."""
    filling = folder / "filling"
    with contextlib.suppress(OSError), filling.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    os.truncate(filling, max(filling.stat().st_size - leave_bytes, 0))
    return filling
