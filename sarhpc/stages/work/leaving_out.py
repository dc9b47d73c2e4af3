"""Leaving out a measure whose inputs cannot be used, with the reason; the others stand."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from hpc.errors import ConfigError, DataError

UNUSABLE = (ConfigError, DataError, FileNotFoundError, ValueError)
"""What another start would meet again."""


@contextlib.contextmanager
def leaving_out(note: Callable[[str], None]) -> Iterator[None]:
    """Give `note` the reason where a set, a model or a setting cannot be used, and go on.

    Anything else is raised, as a full disk or an interrupted read: the same command may well
    measure it later, and a sealed evaluation would lack it for good.
    """
    try:
        yield
    except UNUSABLE as error:
        note(str(error))
