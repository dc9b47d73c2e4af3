"""Which checkpoints a run made itself: its key signs the manifest of each.

`checkpoints/signatures.json` holds an HMAC-SHA256 of every manifest under the run's key. The
manifest holds the digests of all files, so a checkpoint whose signature and digests are right is,
to the byte, one that a job of this run wrote. Checkpoints that are older than the key have no
signature: in a run that is its owner's alone they are taken once, with a warning, and signed.
"""

from __future__ import annotations

import functools
import hmac
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.cluster.keys import (
    derive_key,
    is_own_key,
    key_time,
    read_run_key,
    remember_key,
    replace_run_key,
    run_key,
)
from hpc.documents import read_json
from hpc.errors import ConfigError, VerificationError
from hpc.job.manifest import MANIFEST, list_checkpoints
from hpc.publish import publish_json
from hpc.regular_files import read_regular
from hpc.shell import quoted

SIGNATURES = "signatures.json"
SCHEMA = "hpc.checkpoint-signatures/1"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSignature:
    """Signs the checkpoints of one run and tells them from others."""

    root: Path
    """The run directory."""

    @functools.cached_property
    def _key(self) -> bytes:
        """Read once: what happens to its file meanwhile does not keep a job from saving."""
        return derive_key(run_key(self.root), "checkpoints")

    @functools.cached_property
    def _key_time(self) -> float:
        run_key(self.root)
        return key_time(self.root)

    def sign(self, checkpoint: Path, manifest: Path | None = None) -> None:
        """Note the signature of `checkpoint`, of whose manifest another path may be given."""
        folder = checkpoint.parent
        known = {name: code for name, code in _signatures(folder).items()
                 if any(folder.glob(f"{name}*"))}  # fmt: skip
        code = self._code(checkpoint, (manifest or checkpoint / MANIFEST).read_bytes())
        publish_json(
            folder / SIGNATURES,
            {"schema": SCHEMA, "signatures": {**known, checkpoint.name: code}},
        )

    def is_signed(self, checkpoint: Path) -> bool:
        """Whether a job of this run, or its owner's word, signed the manifest of `checkpoint`."""
        code = _signatures(checkpoint.parent).get(checkpoint.name)
        if code is None:
            return False
        return hmac.compare_digest(code, self._code(checkpoint, _manifest(checkpoint)))

    def find_problem(self, checkpoint: Path) -> str | None:
        """Why `checkpoint` is not of this run, as far as known; None if it may be loaded."""
        if self.is_signed(checkpoint):
            return None
        if checkpoint.name in _signatures(checkpoint.parent):
            return "its manifest is not the one that this run signed"
        if (checkpoint / MANIFEST).lstat().st_ctime >= self._key_time:
            return "no job of this run signed it"
        return self._find_stranger(checkpoint)

    def adopt(self, checkpoint: Path) -> None:
        """Sign a checkpoint without a problem, if it was written before runs had keys."""
        if not self.is_signed(checkpoint):
            _log.warning(
                "checkpoint %s was written before checkpoints were signed; it lies in a run that "
                "only you can write to, so it is taken as its own, and is signed now", checkpoint
            )  # fmt: skip
            self.sign(checkpoint)

    def _code(self, checkpoint: Path, manifest: bytes) -> str:
        stage = checkpoint.parent.parent.name
        return hmac.digest(
            self._key, f"{stage}/{checkpoint.name}\n".encode() + manifest, "sha256"
        ).hex()

    def _find_stranger(self, checkpoint: Path) -> str | None:
        """Who else than this user could have written `checkpoint`; None without any."""
        is_private = not stat.S_IMODE(self.root.stat().st_mode) & 0o077
        for path in (self.root, *checkpoint.parents[:2], checkpoint, *checkpoint.rglob("*")):
            found = path.lstat()
            if found.st_uid != os.geteuid():
                return f"it is not signed, and {path} belongs to user {found.st_uid}"
            if not is_private and found.st_mode & 0o022 and not stat.S_ISLNK(found.st_mode):
                return f"it is not signed, and others may write to {path}"
        return None


def require_own_checkpoints(root: Path, *, trust: bool) -> None:
    """Prepare the key of the run at `root` for a job; with `trust`, sign all of its checkpoints.

    To be called where a verb submits: there the user's state directory is.

    Raises:
        ConfigError: others can read the key.
        VerificationError: the key came with the run from elsewhere, and so did its checkpoints.
    """
    if trust:
        _trust(root)
        return
    key = read_run_key(root)
    if key is not None and is_own_key(key):
        return
    # A key is not copied with the run of another user, who alone can read it.
    signed = key is not None or any(root.glob(f"*/checkpoints/{SIGNATURES}"))
    if signed and (found := next(_step_directories(root), None)):
        raise VerificationError(
            f"the key of {root} is {'absent' if key is None else 'none of yours'}: the run and its "
            f"checkpoints, such as {found}, were made by another user or under another home "
            "directory, and reading them means trusting whoever made them. If you do: "
            f"`sarhpc resume {quoted(root)} --trust-checkpoint`"
        )
    if key is None:
        run_key(root)
    else:
        replace_run_key(root)


def _trust(root: Path) -> None:
    """Sign every checkpoint of the run at `root`, by a key that only this user knows."""
    try:
        key = read_run_key(root)
    except ConfigError:
        key = None
    if key is None or not is_own_key(key):
        key = replace_run_key(root)
    remember_key(key)
    signature = RunSignature(root)
    for path in _step_directories(root):
        if (path / MANIFEST).is_file():
            signature.sign(path)
            _log.warning("checkpoint %s is trusted, as you say, and signed", path)


def _step_directories(root: Path) -> Iterator[Path]:
    for folder in sorted(root.glob("*/checkpoints")):
        yield from (found.path for found in list_checkpoints(folder))


def _manifest(checkpoint: Path) -> bytes:
    try:
        return read_regular(checkpoint / MANIFEST)
    except OSError:
        return b""  # which no signature fits


def _signatures(folder: Path) -> Mapping[str, str]:
    """Signatures by the name of the checkpoint; none where the file is absent or unreadable."""
    try:
        document: Any = read_json(folder / SIGNATURES)
        found = document["signatures"]
        return {str(name): str(code) for name, code in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
