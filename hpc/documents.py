"""JSON and YAML that someone else may have written: plain values, or a ValueError with the reason.

The parsers alone also end in RecursionError for deep nesting, in values that cannot be written
again (lone surrogates), and, for YAML, in a memory that grows exponentially with its aliases.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from hpc.regular_files import read_regular

T = TypeVar("T")

MOST_NESTED = 100
"""Levels of lists and mappings in a document; what walks through it recurses as deep."""

MOST_NODES = 1_000_000
"""Values of a YAML document, each alias counted as often as it stands for its anchor."""

_SIGNS = bytes.maketrans(b"[{]}", b"\2\2\0\0")
_OTHERS = bytes(set(range(256)) - set(b"[{]}"))


def parse_json(text: str | bytes) -> Any:
    """The value in a JSON text; bytes are UTF-8, with or without a byte order mark.

    Raises:
        ValueError: no JSON, no Unicode text, or nested more than `MOST_NESTED` levels.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    _refuse_nesting(text)
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("lists and objects are nested too deep") from error
    if "\\ud" in text or "\\uD" in text:
        # Surrogates that pair up have become one character; a lone one is no text.
        json.dumps(value, ensure_ascii=False).encode()
    return value


def read_json(path: Path) -> Any:
    """The value in a JSON file, as `parse_json`.

    Raises:
        OSError: the file cannot be read.
        ValueError: as `parse_json`.
    """
    return parse_json(read_regular(path))


def json_rows(path: Path) -> list[dict[str, Any]]:
    """The JSON objects in a file with one a line; lines that are torn or damaged are left out.

    Raises:
        OSError: the file cannot be read.
    """
    rows = []
    for line in read_regular(path).splitlines():
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _refuse_nesting(text: str) -> None:
    """Raise ValueError for deep nesting; brackets inside strings only make it look closer."""
    signs = text.encode().translate(_SIGNS, _OTHERS)
    if len(signs) <= MOST_NESTED:
        return
    deepest = max(itertools.accumulate(sign - 1 for sign in signs))
    if deepest > MOST_NESTED and _nesting(text) > MOST_NESTED:
        raise ValueError(f"lists and objects are nested more than {MOST_NESTED} levels")


def _nesting(text: str) -> int:
    """Levels of lists and objects, brackets inside strings left out."""
    level = deepest = 0
    quoted = escaped = False
    for letter in text:
        if quoted:
            quoted = escaped or letter != '"'
            escaped = letter == "\\" and not escaped
        elif letter == '"':
            quoted = True
        elif letter in "[{":
            level += 1
            deepest = max(deepest, level)
        elif letter in "]}":
            level -= 1
    return deepest


def check_yaml(text: str) -> str:
    """`text`, if a loader of YAML can be trusted with it.

    Raises:
        ValueError: nested more than `MOST_NESTED` levels, an alias inside its own anchor, or
            aliases that stand for more than `MOST_NODES` values.
        YAMLError: it is no YAML.
    """
    import yaml

    # libyaml parses six times as fast; wheels of PyYAML have it, other builds may not.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    sizes: dict[str, int] = {}
    open_anchors: list[str | None] = []
    counts = [0]
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            counts[-1] += _size_of(event, sizes)
        elif isinstance(event, yaml.ScalarEvent):
            counts[-1] += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_anchors.append(event.anchor)
            counts.append(1)
            if len(counts) > MOST_NESTED:
                raise ValueError(
                    f"line {_line_of(event)}: lists and mappings are nested more than "
                    f"{MOST_NESTED} levels"
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            size, anchor = counts.pop(), open_anchors.pop()
            counts[-1] += size
            if anchor is not None:
                sizes[anchor] = size
        if counts[-1] > MOST_NODES:
            raise ValueError(f"it stands for more than {MOST_NODES} values by its aliases")
    return text


def _line_of(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _size_of(alias: Any, sizes: Mapping[str, int]) -> int:
    if alias.anchor not in sizes:
        raise ValueError(
            f"line {_line_of(alias)}: the alias *{alias.anchor} names no anchor that ends before it"
        )
    return sizes[alias.anchor]


def load_yaml(text: str) -> Any:
    """The value in a YAML document of plain types.

    Raises:
        ValueError: as `check_yaml`, or a value that its tag cannot have.
        YAMLError: it is no YAML.
    """
    import yaml

    try:
        return yaml.safe_load(check_yaml(text))
    except (LookupError, TypeError, OverflowError, RecursionError, AttributeError) as error:
        raise ValueError(f"a value cannot be built ({error})") from error


def built(schema: type[T], document: Any) -> T:
    """The dataclass `schema` with the values of a JSON object, each of its declared type.

    Lists become tuples and numbers floats where these are declared; fields with a default may be
    absent.

    Raises:
        ValueError: no object, an unknown or a missing key, or a value of another type.
    """
    if not isinstance(document, dict):
        raise ValueError(  # noqa: TRY004 - one kind of error for every document
            f"expected an object, found {_shown(document)}"
        )
    hints = _hints(schema)  # type: ignore[arg-type]  # mypy does not count a class as Hashable
    unknown = sorted(document.keys() - hints.keys())
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}")
    values = {key: _typed(hints[key], value, key) for key, value in document.items()}
    for field in dataclasses.fields(schema):  # type: ignore[arg-type]
        absent = field.name not in values
        if (
            absent
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ):
            raise ValueError(f"{field.name} is missing")
    return schema(**values)


@functools.lru_cache(maxsize=64)
def _hints(schema: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(schema)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}


def _typed(hint: Any, value: Any, key: str) -> Any:
    """`value` as its declared type; ValueError names `key`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _typed(next(a for a in arguments if a is not type(None)), value, key)
    if dataclasses.is_dataclass(hint):
        return built(hint, value)  # type: ignore[arg-type]  # a hint is a class, not an instance
    if origin is tuple and isinstance(value, list):
        return tuple(_typed(arguments[0], item, key) for item in value)
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {name: _typed(arguments[1], item, f"{key}.{name}") for name, item in value.items()}
    if hint is float and type(value) is int and abs(value) < 1 << 53:
        return float(value)
    if hint is Any or (hint in (str, int, float, bool) and type(value) is hint):
        return value
    raise ValueError(f"{key} is {_shown(value)}, not of type {getattr(hint, '__name__', hint)}")


def _shown(value: Any) -> str:
    return f"{value!r:.40}"
