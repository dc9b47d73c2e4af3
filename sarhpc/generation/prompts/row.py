"""One row of a prompt table: its prompt, how often it is used, and its labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpc.errors import ConfigError

Label = str | int | float | bool
"""Value of a label; null is a label that the row does not have."""

MOST_WORDS = 300
"""Words of a prompt beyond which the row is a mistake: text encoders read 75 tokens."""
MOST_CHARACTERS = 4_000
"""Characters of a prompt, likewise: text without spaces has few words."""
LARGEST_SEED = 2**63 - 1
LARGEST_COUNT = 10_000_000
_RESERVED = ("prompt", "count", "weight", "seed", "negative_prompt")


@dataclass(frozen=True)
class PromptRow:
    """A row as it is planned."""

    prompt: str
    """Prompt of the model, within the prompt template."""
    line: int
    """Line of the file, or number of the row where it has none, from 1."""
    weight: float = 1.0
    """Images by `count`, or relative frequency by `weight`."""
    seed: int | None = None
    """Seed of its first image; None derives it."""
    negative_prompt: str | None = None
    """Negative prompt; None takes the one of the configuration."""
    labels: Mapping[str, Label] = field(default_factory=dict)


def text_of(value: object, column: str) -> str:
    """A prompt in single spaces.

    Raises:
        ConfigError: it is empty, no text, or far longer than any text encoder reads.
    """
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{column} is {_shown(value)}: text is expected")
    words = value.split()
    if len(words) > MOST_WORDS or len(value) > MOST_CHARACTERS:
        raise ConfigError(
            f"{column} has {len(words):,} words ({' '.join(words[:6])[:60]} ...): at most "
            f"{MOST_WORDS}, of which the model reads 75 tokens; shorten it"
        )
    text = " ".join(words)
    if not text.isprintable():
        raise ConfigError(f"{column} {_shown(value)} contains a control character: remove it")
    return text


def count_of(value: object) -> float:
    """A number of images: whole, 0 or more.

    Raises:
        ConfigError: it is not.
    """
    number = _number(value, "count")
    if not number.is_integer() or not 0 <= number <= LARGEST_COUNT:
        raise ConfigError(
            f"count is {_shown(value)}: a whole number from 0 to {LARGEST_COUNT:,} is expected"
        )
    return number


def weight_of(value: object) -> float:
    """A weight: finite, 0 or more.

    Raises:
        ConfigError: it is not.
    """
    number = _number(value, "weight")
    if not math.isfinite(number) or number < 0:
        raise ConfigError(f"weight is {_shown(value)}: a finite number from 0 is expected")
    return number


def seed_of(value: object) -> int | None:
    """A seed, 0 to 2^63 - 1; None for an empty cell.

    Raises:
        ConfigError: it is no such number.
    """
    if value is None or value == "":
        return None
    seed = _whole(value)
    if seed is None or not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"seed is {_shown(value)}: a whole number from 0 to 2^63 - 1 is expected")
    return seed


def _whole(value: object) -> int | None:
    """The value as a whole number; None if it is none."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        # A column of integers with gaps is often stored as floats.
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def labels_of(cells: Mapping[str, object]) -> dict[str, Label]:
    """The cells of all columns that are labels; empty ones are left out.

    Raises:
        ConfigError: one holds a list, an object or a number that is not finite.
    """
    labels: dict[str, Label] = {}
    for name, value in cells.items():
        if name in _RESERVED or value is None or value == "":
            continue
        if not isinstance(value, str | int | float | bool):
            raise ConfigError(f"{name} is {_shown(value)}: a label is one text or number")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{name} is {value}: leave the cell empty where nothing is known")
        labels[name] = value
    return labels


def level_text(level: Label) -> str:
    """A level as a configuration names it: 25 for 25.0."""
    return f"{level:g}" if isinstance(level, float) else str(level)


def _number(value: object, column: str) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"{column} is {_shown(value)}: a number is expected")
    try:
        return float(value)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{column} is {_shown(value)}: a number is expected") from error


def _shown(value: object) -> str:
    return f"{value!r:.60}"
