"""The run that a verb acts on: the user's own, and new files as private as it is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hpc.config import differences
from hpc.shell import quoted
from hpc.store.ownership import (
    open_own_run,
    private_umask,
    replaceable_parent,
    require_own_run,
)
from hpc.store.rundir import PreviewedRun, RunDir, freeze
from sarhpc.stages.run_config import load_run_config, with_edits


def acted_on(run: RunDir) -> RunDir:
    """The run on disk, to act on it; one that was only previewed is made or changed now.

    Raises:
        NotTrustedError: it belongs to another user, or others can write it.
    """
    if run.frozen or _is_of_another_user(run.root):
        require_own_run(run)
    changed = changes_of(run)
    made = own_run(freeze(run).root)
    for line in changed:
        print(f"changed for this run: {line}")
    return made


def changes_of(run: RunDir) -> list[str]:
    """A line for each value of the run on disk that the previewed one replaces."""
    before = RunDir(run.root)
    if not isinstance(run, PreviewedRun) or not before.frozen:
        return []
    return differences(load_run_config(before), load_run_config(run), transient=True)


def _is_of_another_user(folder: Path) -> bool:
    """Whether another user has made the directory of a new run beforehand."""
    return folder.exists() and folder.stat().st_uid != os.geteuid()


def own_run(root: str | Path) -> RunDir:
    """The existing run at `root`, to act on it; warns if others could put another in its place.

    `run.json` is brought up to a draft that was edited by hand.

    Raises:
        ConfigError: there is none.
        NotTrustedError: it belongs to another user, or others can write it.
    """
    run = open_own_run(Path(root))
    found = replaceable_parent(run)
    if found is not None:
        folder, writers = found
        print(
            f"warning: {folder} {writers} and has no sticky bit, so this run could be renamed and "
            f"another put in its place: chmod +t {quoted(folder)}, or if you trust them: "
            f"sarhpc trust {quoted(folder)}",
            file=sys.stderr,
        )
    private_umask(run)
    return RunDir(freeze(with_edits(run)).root)
