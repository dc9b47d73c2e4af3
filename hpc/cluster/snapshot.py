"""The code snapshot: the code that the jobs of a submission import, frozen at submission.

A job may wait for days and be requeued many times while the checkout it was submitted from changes.
`RUN/code/<hash>/` holds the packages at that time, including uncommitted changes, read-only and
named by their content: the same code is stored once, however often it is submitted. Large files
that an earlier snapshot of the run already has are hard-linked, not copied.
"""

from __future__ import annotations

import compileall
import hashlib
import json
import os
import py_compile
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hpc.errors import HpcError
from hpc.publish import Digest, digest_file, publish_text, publishing_directory

FACTS = "SNAPSHOT.json"
PATCH = "PATCH.diff"
LARGE_BYTES = 1 << 20
_IGNORED = ("__pycache__", ".egg-info")


@dataclass(frozen=True)
class Snapshot:
    """Metadata of a snapshot."""

    id: str
    """Sixteen hex digits over the names and bytes of all files."""
    commit: str | None
    """Commit of the checkout; None without git."""
    changed: tuple[str, ...]
    """Files that differ from that commit; the diff is in `PATCH.diff`."""
    files: int
    bytes: int


def checkout() -> Path:
    """The directory that this code is imported from: a checkout, a snapshot, or site-packages."""
    return Path(__file__).resolve().parents[2]


def take_snapshot(
    store: Path,
    source: Path,
    names: Sequence[str],
    leave_out: Callable[[str], bool] | None = None,
    *,
    write: bool = True,
) -> Path:
    """Directory below `store` with the current files of `source`; an existing one is reused.

    In a git checkout these are the tracked files and those that git does not ignore; elsewhere all
    but compiled ones.

    Args:
        store: `RUN/code`.
        source: directory of the packages.
        names: files and directories in it to include; missing ones are skipped.
        leave_out: whether to exclude a relative path.
        write: make it if it is not there; else only its name is worked out.

    Raises:
        HpcError: none of the names exists.
    """
    wanted = [name for name in names if (source / name).exists()]
    files = [
        name
        for name in sorted(_listed(source, wanted))
        if (source / name).is_file() and not (leave_out and leave_out(name))
    ]
    if not files:
        raise HpcError(f"{source} has none of the packages to run ({', '.join(names)})")
    digests = {name: digest_file(source / name) for name in files}
    content = "".join(f"{digests[name].sha256} {name}\n" for name in files)
    identity = hashlib.sha256(content.encode()).hexdigest()[:16]
    target = store / identity
    if not write or (target / FACTS).is_file():
        return target
    commit, changed, patch = _history(source, wanted)
    size = sum(digest.bytes for digest in digests.values())
    facts = Snapshot(identity, commit, changed, len(files), size)
    # Another command may publish the same snapshot now, and its jobs may already import from it.
    with publishing_directory(target, keep_existing=not target.exists()) as folder:
        for name in files:
            _place(source / name, folder / name, name, digests[name].bytes, store)
        _compile(folder, target)
        if patch:
            publish_text(folder / PATCH, patch)
        publish_text(folder / FACTS, json.dumps(asdict(facts), indent=1) + "\n")
        _check(folder, digests)
    _make_read_only(target)
    return target


def _listed(source: Path, wanted: Iterable[str]) -> list[str]:
    tracked = _git(source, "ls-files", "-z", "--cached", "--others", "--exclude-standard", *wanted)
    if tracked is not None:
        return [name for name in tracked.split("\0") if name]
    return [
        path.relative_to(source).as_posix()
        for name in wanted
        for path in ([source / name] if (source / name).is_file() else (source / name).rglob("*"))
        if not any(part.endswith(_IGNORED) for part in path.parts)
    ]


def _history(source: Path, wanted: Sequence[str]) -> tuple[str | None, tuple[str, ...], str]:
    """Commit, changed files and their diff."""
    commit = _git(source, "rev-parse", "HEAD")
    if commit is None:
        return None, (), ""
    status = _git(source, "status", "--porcelain", "-z", "--no-renames", "--", *wanted) or ""
    changed = tuple(line[3:] for line in status.split("\0") if line)
    return commit.strip(), changed, _git(source, "diff", "HEAD", "--", *wanted) or ""


def _git(source: Path, *arguments: str) -> str | None:
    """Output of git in the checkout `source`; None if it is not a checkout or git is missing."""
    if not (source / ".git").exists() or shutil.which("git") is None:
        return None
    command = ["git", "-C", str(source), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise HpcError(f"{' '.join(command)} failed: {answer.stderr.strip()}")
    return answer.stdout


def _place(origin: Path, copy: Path, name: str, size: int, store: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    if size >= LARGE_BYTES:
        for earlier in store.glob(f"[0-9a-f]*/{name}"):
            # Never link to the checkout: its files may be modified in place.
            if digest_file(earlier) == digest_file(origin):
                os.link(earlier, copy)
                return
    shutil.copyfile(origin, copy)


def _compile(folder: Path, target: Path) -> None:
    """Compile the sources, as jobs cannot write bytecode into the read-only snapshot."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(
        folder, quiet=2, invalidation_mode=mode, stripdir=str(folder), prependdir=str(target)
    )


def _check(folder: Path, digests: Mapping[str, Digest]) -> None:
    """Raise HpcError if a file changed while it was copied."""
    for name, digest in digests.items():
        if digest_file(folder / name) != digest:
            raise HpcError(f"{name} changed while it was copied; submit again")


def _make_read_only(target: Path) -> None:
    for directory, _, names in os.walk(target):
        for name in names:
            (Path(directory) / name).chmod(0o444)
        Path(directory).chmod(0o555)
