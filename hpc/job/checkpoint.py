"""The checkpoint store: saved together or not at all, loaded together or from the one before.

Saving (promise P2): all ranks write into `.staging-<step>-<attempt>`; each makes durable and
digests what it wrote; rank 0 compares that with what is on disk, publishes MANIFEST.json and
renames the directory to `step_<step>`. Once a rank has written, the rest can go on beside its work:
`begin` and `finish` are the two halves of `save`. Loading (promise P3): rank 0 picks the newest
checkpoint whose manifest matches its files, all ranks read it, and when one cannot, all take the
one before.

DeepSpeed must be told `save_latest=False`: it publishes its own `latest` before its last barrier,
so a rank killed while saving would leave a torn newest checkpoint that no rank can load.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hpc.errors import ConfigError, HpcError, TransientError
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
    digest_files,
    files_under,
    find_problem,
    list_checkpoints,
    step_directory,
)
from hpc.job.part import Write, await_files, in_a_thread, settle_part, write_part
from hpc.publish import Digest, commit_directory, fault, publish_json, publish_text

T = TypeVar("T")
Read = Callable[[Path, Mapping[str, Any]], None]

_log = logging.getLogger(__name__)
_TRIES = 3


class CheckpointError(HpcError):
    """Checkpoints are there, but none can be loaded."""


@dataclass(frozen=True)
class _Begun:
    """A checkpoint that its rank has written."""

    step: int
    staging: Path
    target: Path
    state: Mapping[str, Any]
    digests: Future[dict[str, Digest]] | None
    """Those of this rank's files once they are durable; None if the checkpoint stood already."""


class CheckpointStore:
    """The checkpoints of one training run under one directory, seen by all its ranks.

    `save`, its halves `begin` and `finish`, and `load` are collective: every rank calls them, and
    they end alike on every rank.
    """

    def __init__(
        self,
        root: Path,
        communicator: RankGroup,
        attempt: int,
        keep_last: int = 2,
        keep_every: int | None = None,
        check_sha256: bool = True,
        also_keep: Callable[[], Collection[int]] = tuple,
    ) -> None:
        """Open the store; nothing is touched before the first save or load.

        Args:
            root: directory of the checkpoints, on storage that all ranks share.
            communicator: the ranks that save and load together.
            attempt: number of this start of the job.
            keep_last: how many of the newest whole checkpoints to keep, at least 2.
            keep_every: keep for ever the checkpoints at multiples of this many steps.
            check_sha256: compare every byte before loading, not only the sizes.
            also_keep: tells steps whose checkpoints stay, asked on rank 0 whenever older ones are
                let go; for example the best one so far.

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
        self._ranks = communicator
        self._attempt = attempt
        self._keep_last = keep_last
        self._keep_every = keep_every
        self._check_sha256 = check_sha256
        self._also_keep = also_keep
        self._begun: _Begun | None = None

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Every checkpoint, newest first, with what its sizes tell; not collective."""
        return list_checkpoints(self.root)

    def verify(self, deep: bool = True) -> tuple[Checkpoint, ...]:
        """Every checkpoint, newest first, compared by SHA-256 if `deep`; not collective."""
        return list_checkpoints(self.root, deep)

    def save(self, step: int, write: Write, state: Mapping[str, Any]) -> Path:
        """The directory of the checkpoint of `step`, whole and durable, the same on every rank.

        A whole checkpoint of the same step is kept as it is: the same step of the same run holds
        the same content. Arguments and errors are those of `begin`.
        """
        self.begin(step, write, state)
        return self._finish()

    def begin(self, step: int, write: Write, state: Mapping[str, Any]) -> None:
        """Write the checkpoint of `step`; until `finish` it is none, and each rank may work on.

        Args:
            step: optimiser steps done.
            write: called on every rank with the staging directory; may return the files this
                rank wrote (then the rank makes them durable and digests them itself, in a thread,
                and they must arrive on rank 0). File names must differ between ranks.
            state: small JSON values to hand back on loading; rank 0's are kept.

        Raises:
            HpcError: the one begun before is not finished.
            TransientError: a rank could not write (a full disk, for one; torch reports that as a
                RuntimeError, so every error of `write` counts). Raised on every rank; the staging
                directory is removed and older checkpoints are untouched.
        """
        if self._begun is not None:
            raise HpcError(f"step {self._begun.step} is begun; finish it before step {step}")
        target = step_directory(self.root, step)
        staging = self.root / f".staging-{step:08d}-{self._attempt}"
        with self._removed_if_it_fails(staging):
            if self._rank_0_saves(lambda: self._prepare(target, staging), target):
                self._begun = _Begun(step, staging, target, state, None)
                return
            own: list[Path] = []
            outcomes = try_together(self._ranks, lambda: own.extend(write_part(staging, write)))
            self._end_save(outcomes, target)
            digests = in_a_thread(lambda: settle_part(staging, own))
            self._begun = _Begun(step, staging, target, state, digests)

    def finish(self, patience_s: float) -> Path | None:
        """The checkpoint begun last, whole and durable; None if a rank is not ready for that yet.

        Args:
            patience_s: how long to wait for the threads of the ranks.

        Raises:
            HpcError: no checkpoint was begun.
            TransientError: as in `begin`.
        """
        begun = self._begun
        if begun is not None and begun.digests is not None:
            with contextlib.suppress(TimeoutError):
                begun.digests.exception(patience_s)
            if self._ranks.any(not begun.digests.done()):
                return None
        return self._finish()

    def _finish(self) -> Path:
        begun, self._begun = self._begun, None
        if begun is None:
            raise HpcError("no checkpoint was begun; call begin before finish")
        if begun.digests is None:
            return begun.target
        with self._removed_if_it_fails(begun.staging):
            outcomes = try_together(self._ranks, begun.digests.result)
            self._end_save(outcomes, begun.target)
            parts = [outcome.value or {} for outcome in outcomes]
            self._rank_0_saves(lambda: self._complete(begun, parts), begun.target)
            self._rank_0_saves(lambda: self._commit(begun.staging, begun.target), begun.target)
        return begun.target

    @contextlib.contextmanager
    def _removed_if_it_fails(self, staging: Path) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if self._ranks.rank == 0:
                shutil.rmtree(staging, ignore_errors=True)
            raise

    def load(self, read: Read) -> Mapping[str, Any] | None:
        """The state of the newest checkpoint that every rank could read; None if there is none.

        Damaged checkpoints are renamed to `step_<step>.bad`, and so are those that could not be
        read once an older one could. If three in a row cannot be read nothing is renamed: their
        bytes are as written, so the reader is to blame.

        Args:
            read: called on every rank with the directory and the saved state, to which `step` and
                `world_size` (the ranks that wrote it) are added. It may be called again with an
                older checkpoint, so it must set everything it restores. A ConfigError or
                TransientError from it says that the checkpoint is not to blame: it is raised on
                every rank and no older one is tried.

        Raises:
            CheckpointError: checkpoints are there but none can be loaded.
        """
        refused: dict[str, str] = {}
        while len(refused) < _TRIES:
            choice = self._rank_0_loads(lambda: self._newest_whole(refused))
            if choice is None:
                break
            name, state = choice
            problem = self._try_reading(read, self.root / name, state)
            if problem is None:
                self._rank_0_loads(functools.partial(self._settle, name, refused))
                return state
            refused[name] = problem
        self._rank_0_loads(lambda: self._refuse_to_forget(refused))
        return None

    # Saving, step by step

    def _rank_0_saves(self, action: Callable[[], T], target: Path) -> T:
        outcome = on_rank_0(self._ranks, action)
        self._end_save([outcome], target)
        return outcome.value  # type: ignore[return-value]  # no failure, so the action's value

    def _end_save(self, outcomes: list[Outcome[T]], target: Path) -> None:
        failures = describe_failures(outcomes)
        if failures is not None:
            raise TransientError(
                f"checkpoint {target} was not saved: {failures}. Older checkpoints are untouched; "
                "free space or repair the cause, then resume."
            )

    def _prepare(self, target: Path, staging: Path) -> bool:
        """Make an empty staging directory; True if the checkpoint is there already."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._sweep()
        for found in self.checkpoints():
            if found.path == target and found.problem is None:
                _log.info("checkpoint present step=%d path=%s", found.step, target)
                return True
            if found.path == target:
                self._quarantine(target, str(found.problem))
        staging.mkdir()
        return False

    def _complete(self, begun: _Begun, parts: list[dict[str, Digest]]) -> None:
        """Check the set of files and publish the manifest."""
        staging = begun.staging
        files = {name: digest for part in parts for name, digest in part.items()}
        if len(files) != sum(map(len, parts)):
            raise HpcError("two ranks report the same file; give every rank names of its own")
        await_files(staging, files)
        others = [
            path
            for path in files_under(staging)
            if path.relative_to(staging).as_posix() not in files
        ]
        files.update(digest_files(staging, others))
        empty = sorted(name for name, digest in files.items() if digest.bytes == 0)
        if empty or not files:
            raise HpcError(f"empty files: {', '.join(empty[:5])}" if empty else "no file written")
        fault("checkpoint.before_manifest")
        world, now = self._ranks.world, time.time()
        manifest = Manifest(begun.step, world, self._attempt, now, begun.state, files)
        publish_json(staging / MANIFEST, manifest.to_json())

    def _commit(self, staging: Path, target: Path) -> None:
        """Make everything durable, rename, and only then let older checkpoints go."""
        fault("checkpoint.before_rename")
        commit_directory(staging, target)
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
        # The rename takes validity away first: half a deletion must not look like a checkpoint.
        trash = self.root / f".trash-{path.name}-{self._attempt}"
        os.replace(path, trash)
        fault("checkpoint.before_delete")
        shutil.rmtree(trash)

    def _sweep(self) -> None:
        """Remove what earlier attempts left half-written or half-deleted."""
        for pattern in (".staging-*", ".trash-*"):
            for leftover in self.root.glob(pattern):
                shutil.rmtree(leftover)

    # Loading, step by step

    def _rank_0_loads(self, action: Callable[[], T]) -> T:
        outcome = on_rank_0(self._ranks, action)
        if outcome.failure is not None:
            raise (outcome.kind or HpcError)(f"cannot load a checkpoint: {outcome.failure}")
        return outcome.value  # type: ignore[return-value]  # no failure, so the action's value

    def _newest_whole(self, refused: Mapping[str, str]) -> tuple[str, dict[str, Any]] | None:
        """Name and state of the newest matching checkpoint; damaged ones are set aside."""
        if not refused:
            self._sweep()
        for found in self.checkpoints():
            if found.path.name in refused:
                continue
            problem = found.problem
            if problem is None and found.manifest is not None:
                problem = find_problem(found.path, found.manifest.files, self._check_sha256)
                own = {"step": found.step, "world_size": found.manifest.world_size}
                if problem is None:
                    return found.path.name, {**found.manifest.state, **own}
            self._quarantine(found.path, str(problem))
        return None

    def _try_reading(self, read: Read, path: Path, state: Mapping[str, Any]) -> str | None:
        """What kept some rank from reading, None if all could."""

        def read_part() -> None:
            fault("checkpoint.before_read")
            read(path, state)

        outcomes = try_together(self._ranks, read_part)
        failures = describe_failures(outcomes)
        for outcome in outcomes:
            if outcome.kind and issubclass(outcome.kind, (ConfigError, TransientError)):
                raise outcome.kind(f"checkpoint {path} was not loaded: {failures}")
        return failures

    def _settle(self, name: str, refused: Mapping[str, str]) -> None:
        """Set aside what could not be read, now that an older checkpoint could."""
        for bad, problem in refused.items():
            self._quarantine(self.root / bad, problem)
        latest = self.root / "latest"
        if not latest.exists() or latest.read_text().strip() != name:
            publish_text(latest, name + "\n")
        _log.info("checkpoint loaded path=%s", self.root / name)

    def _quarantine(self, path: Path, problem: str) -> None:
        names = itertools.chain([".bad"], (f".bad-{n}" for n in itertools.count(2)))
        aside = next(
            candidate
            for candidate in (path.with_name(path.name + suffix) for suffix in names)
            if not candidate.exists()
        )
        os.replace(path, aside)
        _log.warning("checkpoint set aside path=%s problem=%s", aside, problem)

    def _refuse_to_forget(self, refused: Mapping[str, str]) -> None:
        """Starting over in silence would throw the run's work away."""
        found = [f"{name} ({problem})" for name, problem in refused.items()]
        found += sorted(f"{path.name} (damaged)" for path in self.root.glob("step_*.bad*"))
        if found:
            raise CheckpointError(
                f"none of the checkpoints in {self.root} can be loaded: {', '.join(found)}. "
                "Those not called .bad have the bytes they were written with: look for the cause "
                "in code, configuration or world size. To begin at step 0, move all away."
            )
