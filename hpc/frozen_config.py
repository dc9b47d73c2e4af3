"""Frozen configurations read without OmegaConf, in a tenth of the time.

A document that `hpc.config.to_yaml` wrote has every key and each value in its declared type, so
nothing is left to merge or to convert. Any other document is declined, and OmegaConf reads it.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from typing import Any, Union, get_args, get_origin, get_type_hints

DECLINED = object()
"""Result for a document or a value that takes OmegaConf to read."""


def fields_of(schema: type[Any]) -> dict[str, Any]:
    """Type of each field of a dataclass, by name."""
    return _fields(schema)  # type: ignore[arg-type]  # mypy does not count a class as Hashable


@functools.lru_cache(maxsize=256)
def _fields(schema: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(schema)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}


def read_frozen(schema: type[Any], text: str) -> Any:
    """The configuration of type `schema` in the YAML document `text`, or `DECLINED`.

    Interpolations are texts like others; a caller who has them resolved does not ask.
    """
    import yaml

    if not yaml.__with_libyaml__:
        return DECLINED
    try:
        if _repeats_a_key(yaml.compose(text, Loader=yaml.CSafeLoader)):
            return DECLINED
        return typed(schema, yaml.load(text, Loader=yaml.CSafeLoader))
    except (yaml.YAMLError, ValueError):
        return DECLINED


def _repeats_a_key(node: Any) -> bool:
    """Whether a mapping in the document has a key twice; YAML's own loader takes the last."""
    if node is None or node.id == "scalar":
        return False
    if node.id == "sequence":
        return any(map(_repeats_a_key, node.value))
    keys = [key.value for key, _ in node.value if key.id == "scalar"]
    return len({*keys}) < len(node.value) or any(_repeats_a_key(value) for _, value in node.value)


def typed(hint: Any, value: Any) -> Any:
    """`value` with its dataclasses built; `DECLINED` unless it is exactly what `hint` declares."""
    if dataclasses.is_dataclass(hint):
        return _built(hint, value)  # type: ignore[arg-type]  # a hint is a class, not an instance
    if get_origin(hint) in (Union, types.UnionType):
        if value is None:
            return None if type(None) in get_args(hint) else DECLINED
        inner = [other for other in get_args(hint) if other is not type(None)]
        return typed(inner[0], value) if len(inner) == 1 else DECLINED
    if get_origin(hint) is list and type(value) is list:
        items = [typed(get_args(hint)[0], item) for item in value]
        return DECLINED if any(item is DECLINED for item in items) else items
    if get_origin(hint) is dict and get_args(hint)[0] is str and type(value) is dict:
        parts = {typed(str, key): typed(get_args(hint)[1], item) for key, item in value.items()}
        declined = any(DECLINED in (key, item) for key, item in parts.items())
        return DECLINED if declined else parts
    if hint is str and type(value) is str:
        # A value that is still missing.
        return DECLINED if value == "???" else value
    return value if hint in (bool, int, float) and type(value) is hint else DECLINED


def _built(schema: type[Any], value: Any) -> Any:
    fields = fields_of(schema)
    if type(value) is not dict or value.keys() != fields.keys():
        return DECLINED
    parts = {name: typed(hint, value[name]) for name, hint in fields.items()}
    return DECLINED if any(part is DECLINED for part in parts.values()) else schema(**parts)
