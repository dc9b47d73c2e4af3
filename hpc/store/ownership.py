"""Whether a run may be acted on: nobody but the user can have written what it says (P8).

To act on a run is to run its code, to load its pickles and to do what its configuration and its
profile say, with the rights of who types the command. So a run is acted upon only if it belongs to
that user and nobody else can write it, or if the user has declared it safe. To read a run is to do
nothing that it says, and is not checked.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from hpc.errors import NotTrustedError
from hpc.permissions import other_writers
from hpc.regular_files import open_regular
from hpc.shell import quoted
from hpc.store.rundir import RunDir, open_run
from hpc.store.trusted import is_trusted

EXECUTED = ("code", "submit", "submissions")
"""Folders of a run whose files are executed, unpickled or followed, however deep."""


def open_own_run(root: Path) -> RunDir:
    """The existing run at `root`, to act on it.

    Raises:
        ConfigError: there is none.
        NotTrustedError: it is not the user's own.
    """
    run = open_run(root)
    require_own_run(run)
    return run


def require_own_run(run: RunDir, *, thorough: bool = True) -> None:
    """Raise NotTrustedError unless the run is the user's own, or declared safe.

    Args:
        run: the run.
        thorough: look at every file of its code and submissions too. A job need not: the command
            that submitted it did, and nobody else could write there since.
    """
    found = _first_doubt(run.root, _entries(run, thorough))
    if found is None or is_trusted(run.root):
        return
    path, writers = found
    inside = "" if path == run.root else f" in {run.root}"
    raise NotTrustedError(
        f"{path}{inside} {writers}: to act on this run is to do what its files say, with your "
        "rights; status, logs, report, inspect, verify and evaluate --out only read it. "
        f"{_remedy(run.root, writers)}if you trust all who can write there: "
        f"sarhpc trust {run.quoted}"
    )


def read_own_file(path: Path, owners: Iterable[int] = ()) -> str:
    """The text of a file that only the user, root and `owners` can write.

    Raises:
        NotTrustedError: others can, and the user has not declared it safe.
        OSError: it cannot be read.
        UnicodeDecodeError: it is no UTF-8 text.
    """
    with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig") as file:
        # Of the file that is open: another one may take its name meanwhile.
        writers = other_writers(os.fstat(file.fileno()), {os.geteuid(), 0, *owners})
        if writers is not None and not is_trusted(path):
            raise NotTrustedError(
                f"{path} {writers}: what it says is done with your rights; copy it, or if you "
                f"trust all who can write it: sarhpc trust {quoted(path.resolve())}"
            )
        return file.read()


def replaceable_parent(run: RunDir) -> tuple[Path, str] | None:
    """The nearest folder above the run in which others can rename it, and who they are.

    None if there is none, or if it was declared safe. Where the sticky bit is set they cannot.
    """
    for folder in run.root.parents:
        status = folder.stat()
        writers = other_writers(status, {status.st_uid})
        if writers is not None and not status.st_mode & stat.S_ISVTX and not is_trusted(folder):
            return folder, writers
    return None


def private_umask(run: RunDir) -> int:
    """Set the umask by which new files, also outside the run, are as private as the run is now.

    Returns:
        The umask before.
    """
    return os.umask(~stat.S_IMODE(run.root.stat().st_mode) & 0o055 | 0o022)


def _remedy(root: Path, writers: str) -> str:
    if not writers.startswith("can"):
        return ""
    return f"Take the right away: chmod -R go-w {quoted(root)}; or "


def _first_doubt(root: Path, paths: Iterable[Path]) -> tuple[Path, str] | None:
    for path in (root, *paths):
        try:
            writers = _writers(path, root)
        except FileNotFoundError:  # a temporary file, or a link to nothing
            continue
        if writers is not None:
            return path, writers
    return None


def _writers(path: Path, root: Path) -> str | None:
    """Who else can change `path`, or what it links to: `cp -r` keeps links of another user."""
    mine = os.geteuid()
    writers = other_writers(path.lstat(), (mine,))
    if writers is not None or not path.is_symlink():
        return writers
    target = Path(os.path.realpath(path))
    if path.relative_to(root).parts[0] in EXECUTED:
        return f"is a link to {target}"
    writers = other_writers(target.stat(), (mine, 0))
    return None if writers is None else f"links to {target}, which {writers}"


def _entries(run: RunDir, thorough: bool) -> Iterator[Path]:
    """Files and folders of the run that decide what is done."""
    for path in sorted(run.root.iterdir()):
        yield path
        if path.is_dir():
            if path.name in EXECUTED:
                yield from _tree(path) if thorough else path.iterdir()
            elif (path / "plan.json").exists():
                yield from path.iterdir()


def _tree(folder: Path) -> Iterator[Path]:
    for directory, folders, files in os.walk(folder):
        yield from (Path(directory) / name for name in (*folders, *files))
