"""The Python environment as one file for compute nodes, unpacked once per node and job.

An environment of this project is about 40,000 files. On a parallel file system each costs an inode
of the quota, and hundreds of ranks that import it at once query the metadata server for the same
names. One file is read sequentially instead, onto the node's own disk:

    python tools/pack_env.py pack --env .venv --out /work/env/sarhpc.tar
    # and in the profile:  python: /work/env/sarhpc.python

`sarhpc.python` is a small script: it unpacks the file below `$TMPDIR`, once per node, and executes
the interpreter there. The project's own code is not packed if it is installed editable; jobs import
it from the run's snapshot.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

EDITABLE = "__editable__"
SPARE = 1.05
"""Free space required on the node's disk, as a multiple of the unpacked size."""


class PackError(Exception):
    """An environment cannot be packed or unpacked; the message has the remedy."""


@dataclass(frozen=True)
class Packed:
    """Metadata of a packed environment, stored beside it as `<name>.json`."""

    sha256: str
    """Of the packed file."""
    bytes: int
    """Of all files, unpacked."""
    files: int
    base: str
    """Base interpreter of the environment; it must be on the nodes too."""
    version: str
    prefix: str
    """Original directory of the environment, which scripts in `bin` name in their first line."""
    left_out: tuple[str, ...] = ()
    """Editable installs."""


def pack(env: Path, out: Path) -> Packed:
    """Write environment `env` into the file `out`, with its metadata and start script beside it.

    Raises:
        PackError: `env` is no virtual environment.
    """
    env = env.resolve()
    settings = _settings(env)
    out.parent.mkdir(parents=True, exist_ok=True)
    total = files = 0
    left_out = []
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
            for path in _members(env):
                if EDITABLE in path.name:
                    left_out.append(path.name)
                    continue
                # Times stay: compiled modules are valid for the time of their source only.
                tar.add(path, arcname=str(path.relative_to(env)), recursive=False)
                total += path.lstat().st_size
                files += 1
        digest = _durable_digest(temporary)
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    base = Path(settings["home"]) / "python3"
    version = settings.get("version", "")
    packed = Packed(digest, total, files, str(base), version, str(env), tuple(left_out))
    _beside(out, ".json").write_text(json.dumps(asdict(packed), indent=1) + "\n")
    _write_start_script(out, packed)
    return packed


def _durable_digest(path: Path) -> str:
    """SHA-256 of the file, once it is durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _settings(env: Path) -> dict[str, str]:
    try:
        lines = (env / "pyvenv.cfg").read_text().splitlines()
    except OSError as error:
        raise PackError(f"{env} is no virtual environment: {error}; give one by --env") from error
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _members(env: Path) -> Iterator[Path]:
    """Folders, files and links in a fixed order, folders before their content."""
    for folder, names, files in os.walk(env):
        names.sort()
        yield from (Path(folder) / name for name in sorted([*names, *files]))


def _beside(out: Path, suffix: str) -> Path:
    return out.with_suffix(suffix)


def _write_start_script(out: Path, packed: Packed) -> None:
    """Write `<name>.python` and a copy of this file that it calls, independent of the checkout."""
    tool = _beside(out, ".unpack.py")
    shutil.copyfile(__file__, tool)
    script = _beside(out, ".python")
    command = [packed.base, "-I", str(tool.resolve()), "unpack", str(out.resolve())]
    script.write_text(
        "#!/bin/sh\n"
        "# The interpreter of a packed environment; unpacks it on this node when it is not there.\n"
        f'python=$({shlex.join(command)} --to "${{TMPDIR:-/tmp}}") || exit 1\n'
        'exec "$python" "$@"\n'
    )
    script.chmod(0o755)


def unpack(archive: Path, to: Path) -> Path:
    """Interpreter of the environment in `archive`, unpacked below `to` if it is not there.

    Safe to call from every task of a node at once: one unpacks, the others wait for it.

    Raises:
        PackError: the file is damaged, the disk too small, or the base interpreter missing.
    """
    packed = _facts(archive)
    target = to / f"sarhpc-env-{packed.sha256[:16]}"
    to.mkdir(parents=True, exist_ok=True)
    with _alone(to / f".{target.name}.lock"):
        if not target.is_dir():
            _require_room(to, packed)
            _unpack_new(archive, packed, target)
    python = target / "bin" / "python"
    done = subprocess.run([str(python), "-c", ""], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PackError(
            f"{python} does not start here ({done.stderr.strip()[:200]}): the interpreter it "
            f"is based on, {packed.base}, must be on the nodes; load its module in the profile"
        )
    return python


def _facts(archive: Path) -> Packed:
    path = _beside(archive, ".json")
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        return Packed(**{**document, "left_out": tuple(document["left_out"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PackError(f"{path} does not describe {archive}: {error!r}; pack again") from error


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold `path` alone among the processes of this node; the system frees it if one dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _require_room(to: Path, packed: Packed) -> None:
    disk = os.statvfs(to)
    free = disk.f_bavail * disk.f_frsize
    if free < packed.bytes * SPARE:
        raise PackError(
            f"{to} has {free / 1e9:.1f} GB free, the environment needs "
            f"{packed.bytes * SPARE / 1e9:.1f}; point TMPDIR at a larger disk of the node"
        )
    # Some file systems have no fixed number of inodes and report 0 of 0.
    if disk.f_files and disk.f_favail < packed.files * SPARE:
        raise PackError(
            f"{to} has {disk.f_favail} inodes free, the environment needs {packed.files}; point "
            "TMPDIR at another disk of the node"
        )


def _unpack_new(archive: Path, packed: Packed, target: Path) -> None:
    staging = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != packed.sha256:
            raise PackError(f"{archive} is damaged: its SHA-256 is {digest}; pack it again")
        with tarfile.open(archive) as tar:
            tar.extractall(staging, filter="tar")
        _move_scripts(staging, packed.prefix, target)
        os.replace(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _move_scripts(staging: Path, old: str, target: Path) -> None:
    """Let the scripts in `bin` name the interpreter where it is going to be."""
    first = f"#!{old}/".encode()
    for path in (staging / "bin").iterdir():
        if path.is_symlink() or not path.is_file():
            continue
        text = path.read_bytes()
        if text.startswith(first):
            path.write_bytes(f"#!{target}/".encode() + text[len(first) :])


def main() -> int:
    """Pack or unpack."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack", help="write an environment into one file")
    packing.add_argument("--env", type=Path, default=Path(sys.prefix), help="virtual environment")
    packing.add_argument("--out", type=Path, required=True, help="file to write, NAME.tar")
    unpacking = verbs.add_parser("unpack", help="unpack it; prints the interpreter")
    unpacking.add_argument("archive", type=Path)
    unpacking.add_argument("--to", type=Path, required=True, help="folder on the node's own disk")
    arguments = parser.parse_args()
    try:
        if arguments.verb == "unpack":
            print(unpack(arguments.archive, arguments.to))
            return 0
        packed = pack(arguments.env, arguments.out)
    except PackError as error:
        print(f"pack_env: {error}", file=sys.stderr)
        return 1
    print(f"{packed.files} files, {packed.bytes / 1e9:.2f} GB in {arguments.out}")
    for name in packed.left_out:
        print(f"  left out {name}: jobs import it from the run's snapshot")
    print(f"in the profile:  python: {_beside(arguments.out, '.python').resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
