"""Distinguishing damaged files from transient errors of the file system."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hpc.errors import DataError


class DamagedError(DataError):
    """A file of a scene is missing or damaged; reading it again will fail too."""


@contextlib.contextmanager
def classify_read_errors(what: str) -> Iterator[None]:
    """Run a block that reads `what`; errors of the file itself become DamagedError.

    An OSError with an errno other than ENOENT comes from the system (a stale handle, an
    input/output error): it is passed on, so that the shard is retried instead of rejected. Without
    errno it comes from a decoder that cannot parse the file.

    Raises:
        DamagedError: the file is missing, truncated or not in its format.
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
