"""Processes that live on without the one that started them, and without its terminal."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import types
from collections.abc import Iterator


@contextlib.contextmanager
def detached() -> Iterator[None]:
    """What submitit starts in the block lives on without this process and its terminal."""
    with _detached_streams(), _new_sessions():
        yield


@contextlib.contextmanager
def _new_sessions() -> Iterator[None]:
    """Processes that submitit starts in the block lead sessions of their own.

    It has no such option, and an interactive shell sends SIGHUP to all groups of its session.
    """
    from submitit.local import local

    module = local.subprocess
    popen = functools.partial(module.Popen, start_new_session=True)
    local.subprocess = types.SimpleNamespace(Popen=popen)
    try:
        yield
    finally:
        local.subprocess = module


@contextlib.contextmanager
def _detached_streams() -> Iterator[None]:
    """What starts in the block outlives this process, so it must not keep its pipes open.

    `sarhpc run ... | tee log` would end only with the last stage. The job has logs of its own.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: _duplicate(number) for number in range(3)}
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for number in kept:
            os.dup2(null, number)
        yield
    finally:
        for number, descriptor in kept.items():
            if descriptor is None:
                os.close(number)
            else:
                os.dup2(descriptor, number)
                os.close(descriptor)
        if null not in kept:
            os.close(null)


def _duplicate(descriptor: int) -> int | None:
    """A second descriptor; None of one that is closed, as cron and daemons may leave it."""
    try:
        return os.dup(descriptor)
    except OSError:
        return None
