"""What is wrong with the layers of a configuration: all wrong values and keys, not one alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hpc.config_keys import nested_schema, unknown_keys
from hpc.errors import HpcError
from hpc.frozen_config import fields_of

Merge = Callable[[Mapping[str, Any], Sequence[str]], object]
"""Merges a document and overrides over the defaults; raises if they do not fit."""


def faults(
    schema: type[Any],
    document: Mapping[str, Any],
    source: str,
    overrides: Mapping[str, Mapping[str, Any]],
    merge: Merge,
) -> list[str]:
    """A line for each unknown key and each wrong value of the document, and one for the overrides.

    Each value and each override is merged alone; what only fails together has no line.

    Args:
        schema: of the configuration.
        document: keys and values.
        source: where the document is from.
        overrides: override -> its key and value as a document, empty if it cannot be parsed.
        merge: how they are merged.
    """
    unknown, below = list(unknown_keys(schema, document, source)), document
    lines = []
    for key, value in _leaves(schema, document):
        if (reason := _refusal(merge, _nested(key, value), ())) is not None:
            lines.append(f"invalid configuration in {source} at {key!r}: {reason}")
    if unknown or lines:
        below = {}
    wrong = []
    for override, values in overrides.items():
        found = list(unknown_keys(schema, values, "the command line"))
        unknown += found
        if not found and (reason := _refusal(merge, below, (override,))) is not None:
            wrong.append(f"{override}: {reason}")
    if wrong:
        lines.append(f"invalid configuration in the command line: {'; '.join(wrong)}")
    return [*unknown, *lines]


def reason_of(error: Exception) -> str:
    """The error in one line; for YAML with its line and column, which follow in the message."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem and mark is not None:
        return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    if first.startswith("Cannot merge incompatible container types"):
        return "a list is given where keys and values are expected, or the reverse"
    if first.startswith("Merge error") and "is not a subclass of" in first:
        return "one value is given where keys and values are expected; {} takes their defaults"
    if first.startswith("Invalid value assigned") and "is not a ListConfig" in first:
        return "a list is expected, such as [1, 2]"
    return first


def _refusal(merge: Merge, document: Any, overrides: Sequence[str]) -> str | None:
    """Why a value cannot be merged; None if it can, or if only other values are missing."""
    try:
        merge(document, overrides)
    except HpcError:
        return None
    except Exception as error:  # OmegaConf and its grammar assert and miss keys, among others
        return reason_of(error)
    return None


def _leaves(
    schema: type[Any], values: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Known keys and their values, of parts that have settings of their own those of each."""
    fields = fields_of(schema)
    for key, value in values.items():
        if key not in fields:
            continue
        nested = nested_schema(fields[key])
        if nested is not None and isinstance(value, Mapping):
            yield from _leaves(nested, value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _nested(key: str, value: Any) -> dict[str, Any]:
    for name in reversed(key.split(".")):
        value = {name: value}
    return dict(value)
