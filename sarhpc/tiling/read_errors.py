"""Telling a damaged file from a passing trouble of the disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hpc.errors import DataError


class DamagedError(DataError):
    """A file of a scene cannot be read, and will not be readable next time either."""


@contextlib.contextmanager
def classify_read_errors(what: str) -> Iterator[None]:
    """Raise DamagedError for what is wrong with the file itself.

    An OSError that carries an errno other than "no such file" comes from the system (a stale
    handle, an input/output error): it passes, so that the shard is tried again instead of
    rejected. Without errno it comes from a decoder that does not understand the bytes.

    Raises:
        DamagedError: the file is missing, cut short or not what it claims to be.
    """
    try:
        yield
    except DataError as error:
        raise DamagedError(str(error)) from error
    except FileNotFoundError as error:
        raise DamagedError(f"{what}: {error}; restore the file or catalogue again") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise DamagedError(f"{what}: {error}; restore the file or catalogue again") from error
