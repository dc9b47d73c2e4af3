"""The folder of a soak test: a file system of its own, and nothing of it left however it ends.

A process of its own waits for the end of the test, also by SIGKILL, then stops the cluster, ends
every process that works in the folder, unmounts and removes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from mini_slurm import MiniSlurm
from mini_slurm_processes import kill

SIZE = "3g"
CLEAN_UP_S = 120.0


@contextlib.contextmanager
def soak_folder() -> Iterator[Path]:
    """A new folder with `cluster/` and `runs/`; gone after the block, with all that works in it.

    `runs/` is a file system in memory where mounting is allowed: one whose disk can be full.
    """
    # Slurm's sockets need a short path, and munged is another user.
    folder = Path(tempfile.mkdtemp(prefix="mini-slurm-soak-"))
    folder.chmod(0o755)
    guard = [sys.executable, __file__, str(folder)]
    with subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True) as watching:
        try:
            runs = folder / "runs"
            runs.mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "soak", str(runs)]
            if subprocess.run(mount, capture_output=True, check=False).returncode:
                print("no file system of its own (that takes root): no fault `fill_disk`")
            yield folder
        finally:
            watching.communicate()


def clean_up(folder: Path) -> None:
    """Nothing of a soak test is left: cluster, processes, file system, folder."""
    cluster = MiniSlurm(folder / "cluster")
    until = time.monotonic() + CLEAN_UP_S
    while time.monotonic() < until:
        cluster.stop()
        if not kill(_working_in(folder)):
            break
    runs = folder / "runs"
    while runs.is_mount():
        if subprocess.run(["umount", "--lazy", str(runs)], check=False).returncode:
            break
    shutil.rmtree(folder, ignore_errors=True)


def _working_in(folder: Path) -> list[psutil.Process]:
    """Processes that name `folder` in their command line or environment, and their children."""
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = [*process.cmdline(), *process.environ().values()]
            if any(str(folder) in word for word in words):
                tree = [process, *process.children(recursive=True)]
                found |= {each.pid: each for each in tree}
    return [process for pid, process in found.items() if pid not in spared]


if __name__ == "__main__":
    sys.stdin.read()  # ends with the process that holds its other end
    clean_up(Path(sys.argv[1]))
