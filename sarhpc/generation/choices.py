"""Settings that are one of a few names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from hpc.errors import ConfigError


def require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ConfigError with the nearest choice unless `value` is one of them."""
    if value not in choices:
        nearest = difflib.get_close_matches(value, choices, n=1)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(f"{name} is {value!r}: one of {', '.join(choices)}.{hint}")
