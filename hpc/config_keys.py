"""Keys of a configuration that its schema does not have, with the nearest that it has."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from hpc.frozen_config import fields_of


def nested_schema(hint: Any) -> type[Any] | None:
    """The dataclass in the hint `X` or `X | None`; None for plain values, lists and mappings."""
    candidates = [hint, *getattr(hint, "__args__", ())]
    if getattr(hint, "__origin__", None) in (list, dict, tuple):
        return None
    return next((c for c in candidates if dataclasses.is_dataclass(c)), None)  # type: ignore[return-value]


def unknown_keys(
    schema: type[Any], values: Mapping[str, Any], where: str, prefix: str = ""
) -> Iterator[str]:
    """A line for each key that the schema does not have."""
    fields = fields_of(schema)
    for key, value in values.items():
        if key not in fields:
            yield _unknown(f"{prefix}{key}", where, schema, fields, prefix)
            continue
        nested = nested_schema(fields[key])
        if nested is not None and isinstance(value, Mapping):
            yield from unknown_keys(nested, value, where, f"{prefix}{key}.")


def _unknown(
    key: str, where: str, schema: type[Any], fields: Mapping[str, Any], prefix: str
) -> str:
    name = key.rpartition(".")[2]
    near = [f"{prefix}{match}" for match in difflib.get_close_matches(name, fields, n=3)]
    near += [path for path in _paths(schema, prefix) if path.endswith(f".{name}")]
    hint = f"did you mean {', '.join(dict.fromkeys(near))}?" if near else ""
    known = hint or f"known here: {', '.join(sorted(fields))}"
    return f"unknown key {key!r} in {where}; {known}"


def _paths(schema: type[Any], prefix: str) -> Iterator[str]:
    for name, hint in fields_of(schema).items():
        yield f"{prefix}{name}"
        nested = nested_schema(hint)
        if nested is not None:
            yield from _paths(nested, f"{prefix}{name}.")
