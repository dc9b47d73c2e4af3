"""Words of commands that messages name, to copy into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path


def quoted(path: str | Path) -> str:
    """The path as one word of a shell: as it is, or in quotes where it has blanks or the like."""
    return shlex.quote(str(path))
