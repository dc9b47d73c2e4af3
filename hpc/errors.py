"""Errors, grouped by what the user can do about them, each with the command's exit code.

Codes: 0 done or cleanly requeued, 1 operational, 2 usage or configuration, 3 numerical,
4 verification failed, 5 incomplete, 75 transient (EX_TEMPFAIL, sysexits.h).

A message states what happened, where, and what to do next.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class HpcError(Exception):
    """An operational failure; the base of every error this project raises on purpose."""

    exit_code: ClassVar[int] = 1


class ConfigError(HpcError):
    """The command or its configuration is wrong; nothing was started."""

    exit_code: ClassVar[int] = 2


class FingerprintMismatchError(ConfigError):
    """The configuration differs from the one the run was frozen with."""


class NotTrustedError(ConfigError):
    """Others can write what the command would carry out; nothing was started."""


class DataError(HpcError):
    """An input (scene, tile, shard, model file) cannot be used as it is."""


class RunInUseError(HpcError):
    """Another live process holds the run directory."""


class LeaseLostError(RunInUseError):
    """Another process took over the lease of this one, which publishes nothing more."""


class GpuMemoryError(HpcError):
    """The work does not fit in the memory of its GPU; the same work will not fit the next time."""


class NumericalError(HpcError):
    """A numerical failure: NaN, infinite loss, loss-scale floor."""

    exit_code: ClassVar[int] = 3


class VerificationError(HpcError):
    """An artefact does not match its record, manifest or checksum."""

    exit_code: ClassVar[int] = 4


class IncompleteError(HpcError):
    """Some shards or an upstream stage are not finished."""

    exit_code: ClassVar[int] = 5


class TransientError(HpcError):
    """A transient failure (full disk, unreachable scheduler); the same command may work later."""

    exit_code: ClassVar[int] = 75


class StopRequestedError(HpcError):
    """Work was saved and ended early on request; resuming continues from there.

    Exit code 0: a job stopped on request must not end FAILED, or its dependents never run
    (`afterok` is not re-evaluated after a requeue).
    """

    exit_code: ClassVar[int] = 0

    def __init__(self, message: str, *, requeue: bool = False, reason: str | None = None) -> None:
        super().__init__(message)
        self.requeue = requeue
        """Whether to requeue the job: it was preempted or timed out, not stopped by a person."""
        self.reason = reason
        """Name of the reason, such as PREEMPT."""


class CrashLoopError(HpcError):
    """Several attempts in a row made no progress; nothing is retried before a person intervenes."""


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed because the disk or a quota is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def exit_code_of(error: BaseException) -> int:
    """The exit code of a command that `error` ends; 128 and more for interruptions."""
    if isinstance(error, HpcError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    return TransientError.exit_code if is_disk_full(error) else 1
