"""The checkpoint store: collective, atomic saves and loads.

Saving (promise P2): all ranks write into `.staging-<step>-<attempt>`; each syncs and digests the
files it wrote; rank 0 compares the digests with the files on disk, publishes MANIFEST.json and
renames the directory to `step_<step>`. Once a rank has written its files, syncing can overlap with
its next steps: `begin` and `finish` are the two halves of `save`. Loading (promise P3): rank 0
picks the newest checkpoint whose manifest matches its files, all ranks read it, and if one fails,
all fall back to the checkpoint before.

DeepSpeed must run with `save_latest=False`: it publishes its own `latest` before its last barrier,
so a rank killed while saving would leave an incomplete newest checkpoint that no rank can load.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from hpc.errors import ConfigError, HpcError, LeaseLostError, TransientError
from hpc.job.agreement import (
    Outcome,
    RankGroup,
    describe_failures,
    on_rank_0,
    try_together,
)
from hpc.job.manifest import (
    MANIFEST,
    Checkpoint,
    Manifest,
    find_problem,
    list_checkpoints,
    set_aside,
    step_directory,
)
from hpc.job.part import Write, joined_parts, run_in_thread, sync_part, write_part
from hpc.job.signatures import RunSignature
from hpc.publish import Digest, Guard, commit_directory, fault, publish_json, publish_text
from hpc.regular_files import read_regular_text
from hpc.shell import quoted

T = TypeVar("T")
Read = Callable[[Path, Mapping[str, Any]], None]

_log = logging.getLogger(__name__)
_MAX_UNREADABLE = 3


class CheckpointError(HpcError):
    """Checkpoints exist, but none can be loaded."""


@dataclass(frozen=True)
class _PendingSave:
    """A checkpoint that this rank has written and not yet committed."""

    step: int
    staging: Path
    target: Path
    state: Mapping[str, Any]
    digests: Future[dict[str, Digest]] | None
    """Digests of this rank's files once they are synced; None if the checkpoint existed before."""


class CheckpointStore:
    """The checkpoints of one training run under one directory, shared by all its ranks.

    `save`, its halves `begin` and `finish`, and `load` are collective: every rank calls them, and
    they have the same result on every rank.
    """

    def __init__(
        self,
        root: Path,
        ranks: RankGroup,
        attempt: int,
        keep_last: int = 2,
        keep_every: int | None = None,
        check_sha256: bool = True,
        also_keep: Callable[[], Collection[int]] = tuple,
        guard: Guard | None = None,
        signature: RunSignature | None = None,
    ) -> None:
        """Open the store; nothing is read or written before the first save or load.

        Args:
            root: directory of the checkpoints, on storage that all ranks share.
            ranks: those that save and load together.
            attempt: number of this start of the job.
            keep_last: number of newest valid checkpoints to keep, at least 2.
            keep_every: also keep the checkpoints at multiples of this many steps.
            check_sha256: compare SHA-256 before loading, not only the sizes.
            also_keep: gives further steps whose checkpoints to keep, for example the best one so
                far; called on rank 0 before older ones are deleted.
            guard: called on rank 0 before it renames or removes anything; raises if this start of
                the job may not do so any more.
            signature: signs what is saved; what it does not know is not loaded. None takes every
                checkpoint that is whole.

        Raises:
            ConfigError: `keep_last` below 2 or `keep_every` below 1.
        """
        if keep_last < 2:
            raise ConfigError(
                f"keep_last={keep_last} would leave no checkpoint to fall back on when the newest "
                "is damaged; use 2 or more"
            )
        if keep_every is not None and keep_every < 1:
            raise ConfigError(f"keep_every={keep_every} must be a positive number of steps")
        self.root = root
        self._ranks = ranks
        self._attempt = attempt
        self._keep_last = keep_last
        self._keep_every = keep_every
        self._check_sha256 = check_sha256
        self._also_keep = also_keep
        self._guard = guard or (lambda: None)
        self._signature = signature
        self._foreign: dict[str, str] = {}
        """Whole checkpoints that are not of this run, each with the reason; on rank 0."""
        self._pending: _PendingSave | None = None

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Every checkpoint, newest first, checked by file sizes and signature; not collective."""
        return tuple(map(self._with_origin, list_checkpoints(self.root)))

    def verify(self, deep: bool = True) -> tuple[Checkpoint, ...]:
        """Every checkpoint, newest first, checked by SHA-256 if `deep`; not collective."""
        return tuple(map(self._with_origin, list_checkpoints(self.root, deep)))

    def _with_origin(self, found: Checkpoint) -> Checkpoint:
        if found.problem is not None or self._signature is None:
            return found
        return replace(found, problem=self._signature.find_problem(found.path))

    def save(self, step: int, write: Write, state: Mapping[str, Any]) -> Path:
        """The directory of the checkpoint of `step`, complete and durable, the same on every rank.

        A valid checkpoint of the same step is kept as it is: the same step of the same run has the
        same content. Arguments and errors are those of `begin`.
        """
        self.begin(step, write, state)
        return self._finish()

    def begin(self, step: int, write: Write, state: Mapping[str, Any]) -> None:
        """Write the checkpoint of `step`; it exists from `finish` on, and ranks may continue.

        Args:
            step: optimiser steps done.
            write: called on every rank with the staging directory; may return the files this
                rank wrote (then the rank syncs and digests them itself, in a thread, and they must
                become visible on rank 0). File names must differ between ranks.
            state: small JSON values that `load` returns; rank 0's are stored.

        Raises:
            HpcError: the previous `begin` was not finished.
            TransientError: a rank could not write, for example because the disk is full (torch
                reports that as a RuntimeError, so every error of `write` counts). Raised on every
                rank; the staging directory is removed and older checkpoints are untouched.
        """
        if self._pending is not None:
            raise HpcError(f"step {self._pending.step} is pending; finish it before step {step}")
        target = step_directory(self.root, step)
        staging = self.root / f".staging-{step:08d}-{self._attempt}"
        with self._removed_on_error(staging):
            if self._rank_0_saves(lambda: self._prepare(target, staging), target):
                self._pending = _PendingSave(step, staging, target, state, None)
                return
            own: list[Path] = []
            outcomes = try_together(self._ranks, lambda: own.extend(write_part(staging, write)))
            self._end_save(outcomes, target)
            digests = run_in_thread(lambda: sync_part(staging, own))
            self._pending = _PendingSave(step, staging, target, state, digests)

    def finish(self, timeout_s: float) -> Path | None:
        """The pending checkpoint, complete and durable; None if a rank is still syncing.

        Args:
            timeout_s: how long to wait for the threads of the ranks, s.

        Raises:
            HpcError: no checkpoint was begun.
            TransientError: as in `begin`.
        """
        begun = self._pending
        if begun is not None and begun.digests is not None:
            with contextlib.suppress(TimeoutError):
                begun.digests.exception(timeout_s)
            if self._ranks.any(not begun.digests.done()):
                return None
        return self._finish()

    def _finish(self) -> Path:
        begun, self._pending = self._pending, None
        if begun is None:
            raise HpcError("no checkpoint was begun; call begin before finish")
        if begun.digests is None:
            return begun.target
        with self._removed_on_error(begun.staging):
            outcomes = try_together(self._ranks, begun.digests.result)
            self._end_save(outcomes, begun.target)
            parts = [outcome.value or {} for outcome in outcomes]
            self._rank_0_saves(lambda: self._complete(begun, parts), begun.target)
            self._rank_0_saves(lambda: self._commit(begun.staging, begun.target), begun.target)
        return begun.target

    @contextlib.contextmanager
    def _removed_on_error(self, staging: Path) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if self._ranks.rank == 0:
                shutil.rmtree(staging, ignore_errors=True)
            raise

    def load(self, read: Read) -> Mapping[str, Any] | None:
        """The state of the newest checkpoint that every rank could read; None if there is none.

        Damaged checkpoints are renamed to `step_<step>.bad`, and so are those that could not be
        read once an older one could. If three in a row cannot be read, nothing is renamed: their
        bytes are as written, so the fault is in the reader.

        Args:
            read: called on every rank with the directory and the saved state, to which `step` and
                `world_size` (the ranks that wrote it) are added. It may be called again with an
                older checkpoint, so it must set everything it restores. Its ConfigError or
                TransientError means that the checkpoint is not at fault: it is raised on every
                rank and no older one is tried.

        Raises:
            CheckpointError: checkpoints exist but none can be loaded.
        """
        unreadable: dict[str, str] = {}
        while len(unreadable) < _MAX_UNREADABLE:
            choice = self._rank_0_loads(lambda: self._newest_valid(unreadable))
            if choice is None:
                break
            name, state = choice
            problem = self._try_reading(read, self.root / name, state)
            if problem is None:
                self._rank_0_loads(functools.partial(self._accept, name, unreadable))
                return state
            unreadable[name] = problem
        self._rank_0_loads(lambda: self._raise_if_unreadable(unreadable))
        return None

    # Saving, step by step

    def _rank_0_saves(self, action: Callable[[], T], target: Path) -> T:
        outcome = on_rank_0(self._ranks, action)
        self._end_save([outcome], target)
        return outcome.value  # type: ignore[return-value]  # no failure, so the action's value

    def _end_save(self, outcomes: list[Outcome[T]], target: Path) -> None:
        failures = describe_failures(outcomes)
        if any(outcome.kind is LeaseLostError for outcome in outcomes):
            raise LeaseLostError(f"checkpoint {target} was not saved: {failures}")
        if failures is not None:
            raise TransientError(
                f"checkpoint {target} was not saved: {failures}. Older checkpoints are untouched; "
                "free space or fix the cause, then resume."
            )

    def _prepare(self, target: Path, staging: Path) -> bool:
        """Create an empty staging directory; True if the checkpoint exists already."""
        self._guard()
        self.root.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()
        for found in self.checkpoints():
            if found.path == target and found.problem is None:
                _log.info("checkpoint present step=%d path=%s", found.step, target)
                return True
            if found.path == target:
                set_aside(target, str(found.problem))
        staging.mkdir()
        return False

    def _complete(self, begun: _PendingSave, parts: list[dict[str, Digest]]) -> None:
        """Verify the set of files and publish the manifest."""
        staging = begun.staging
        files = joined_parts(staging, parts)
        fault("checkpoint.before_manifest")
        world, now = self._ranks.world, time.time()
        manifest = Manifest(begun.step, world, self._attempt, now, begun.state, files)
        publish_json(staging / MANIFEST, manifest.to_json())

    def _commit(self, staging: Path, target: Path) -> None:
        """Sync everything, rename, and only then delete older checkpoints."""
        fault("checkpoint.before_rename")
        if self._signature is not None:
            # Before the rename: a checkpoint without its signature would be taken for foreign.
            self._signature.sign(target, staging / MANIFEST)
        commit_directory(staging, target, self._guard)
        fault("checkpoint.before_latest")
        publish_text(self.root / "latest", target.name + "\n")
        fault("checkpoint.before_retention")
        whole = [found for found in self.checkpoints() if found.problem is None]
        staying = set(self._also_keep())
        for found in whole[self._keep_last :]:
            regular = self._keep_every is not None and found.step % self._keep_every == 0
            if not regular and found.step not in staying:
                self._delete(found.path)

    def _delete(self, path: Path) -> None:
        # Renamed first: a partly deleted directory must not look like a checkpoint.
        trash = self.root / f".trash-{path.name}-{self._attempt}"
        os.replace(path, trash)
        fault("checkpoint.before_delete")
        shutil.rmtree(trash)

    def _remove_leftovers(self) -> None:
        """Remove partly written and partly deleted directories of earlier attempts."""
        for pattern in (".staging-*", ".trash-*"):
            for leftover in self.root.glob(pattern):
                shutil.rmtree(leftover)

    # Loading, step by step

    def _rank_0_loads(self, action: Callable[[], T]) -> T:
        outcome = on_rank_0(self._ranks, action)
        if outcome.failure is not None:
            raise (outcome.kind or HpcError)(f"cannot load a checkpoint: {outcome.failure}")
        return outcome.value  # type: ignore[return-value]  # no failure, so the action's value

    def _newest_valid(self, unreadable: Mapping[str, str]) -> tuple[str, dict[str, Any]] | None:
        """Name and state of the newest valid checkpoint; damaged ones are quarantined."""
        self._guard()
        if not unreadable:
            self._remove_leftovers()
        for found in list_checkpoints(self.root):
            if found.path.name in unreadable:
                continue
            problem = found.problem
            if problem is None and found.manifest is not None:
                problem = find_problem(found.path, found.manifest.files, self._check_sha256)
            if problem is not None or found.manifest is None:
                set_aside(found.path, str(problem))
            elif foreign := self._with_origin(found).problem:
                _log.warning("checkpoint passed over path=%s problem=%s", found.path, foreign)
                self._foreign[found.path.name] = foreign
            else:
                if self._signature is not None:
                    self._signature.adopt(found.path)
                own = {"step": found.step, "world_size": found.manifest.world_size}
                return found.path.name, {**found.manifest.state, **own}
        return None

    def _try_reading(self, read: Read, path: Path, state: Mapping[str, Any]) -> str | None:
        """Why some rank could not read; None if all could."""

        def read_part() -> None:
            fault("checkpoint.before_read")
            read(path, state)

        outcomes = try_together(self._ranks, read_part)
        failures = describe_failures(outcomes)
        for outcome in outcomes:
            if outcome.kind and issubclass(outcome.kind, (ConfigError, TransientError)):
                raise outcome.kind(f"checkpoint {path} was not loaded: {failures}")
        return failures

    def _accept(self, name: str, unreadable: Mapping[str, str]) -> None:
        """Quarantine checkpoints that could not be read or are foreign, as an older one is not."""
        for bad, problem in {**self._foreign, **unreadable}.items():
            set_aside(self.root / bad, problem)
        latest = self.root / "latest"
        if not latest.is_file() or read_regular_text(latest, "replace").strip() != name:
            publish_text(latest, name + "\n")
        _log.info("checkpoint loaded path=%s", self.root / name)

    def _raise_if_unreadable(self, unreadable: Mapping[str, str]) -> None:
        """Raise if checkpoints exist but none loaded: starting over would discard their work."""
        if self._foreign:
            listed = ", ".join(f"{name} ({why})" for name, why in self._foreign.items())
            raise CheckpointError(
                f"no checkpoint in {self.root} is known to be of this run: {listed}. If you trust "
                f"who wrote them: `sarhpc resume {quoted(self.root.parent.parent)} "
                "--trust-checkpoint`. To start at step 0, move them away."
            )
        found = [f"{name} ({problem})" for name, problem in unreadable.items()]
        found += sorted(f"{path.name} (damaged)" for path in self.root.glob("step_*.bad*"))
        if found:
            raise CheckpointError(
                f"none of the checkpoints in {self.root} can be loaded: {', '.join(found)}. "
                "Those not named .bad are intact: look for the cause in code, configuration or "
                "world size. To start at step 0, move all of them away."
            )
