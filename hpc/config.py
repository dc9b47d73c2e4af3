"""Layered configuration: structured defaults < YAML < dotlist, checked, frozen, fingerprinted.

A schema is a tree of plain dataclasses. A field with `metadata={"transient": True}` (worker counts,
logging) changes how a run is done and not what it makes, so it does not enter the fingerprint.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from hpc.errors import ConfigError

T = TypeVar("T")


def load(schema: type[T], yaml: Path | None = None, overrides: Sequence[str] = ()) -> T:
    """A read-only configuration of type `schema` from defaults, then YAML, then `a.b=c` words.

    Raises:
        ConfigError: unknown key (with the nearest names), wrong type, missing value, bad file.
    """
    layers = [yaml] if yaml is not None else []
    text = [path.read_text() for path in _existing(layers)]
    return loads(schema, text[0] if text else "", overrides, source=str(yaml or "defaults"))


def loads(
    schema: type[T], yaml_text: str, overrides: Sequence[str] = (), *, source: str = "text"
) -> T:
    """As `load`, from the text of a YAML document."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        document = OmegaConf.create(yaml_text or "{}")
        dotlist = OmegaConf.from_dotlist(_checked_words(overrides))
        for layer, where in ((document, source), (dotlist, "the command line")):
            _refuse_unknown(schema, cast("dict[str, Any]", OmegaConf.to_container(layer)), where)
        merged = OmegaConf.merge(OmegaConf.structured(schema), document, dotlist)
        OmegaConf.set_readonly(merged, True)
        _refuse_missing(merged, source)
        return cast("T", OmegaConf.to_object(merged))
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        key = getattr(error, "full_key", None)
        at = f" at {key!r}" if key else ""
        raise ConfigError(f"configuration from {source} is wrong{at}: {first}") from error


def _existing(paths: Sequence[Path]) -> list[Path]:
    for path in paths:
        if not path.is_file():
            raise ConfigError(f"no configuration file {path}; see configs/ for the ones that ship")
    return list(paths)


def _checked_words(words: Sequence[str]) -> list[str]:
    for word in words:
        if "=" not in word:
            raise ConfigError(f"{word!r} is not an override: write key.subkey=value")
    return list(words)


def _refuse_missing(merged: Any, source: str) -> None:
    from omegaconf import OmegaConf

    missing = sorted(OmegaConf.missing_keys(merged))
    if missing:
        raise ConfigError(
            f"configuration from {source} lacks {', '.join(missing)}; "
            f"give it in the YAML or as {missing[0]}=VALUE"
        )


def _fields(schema: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(schema)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}


def _nested(hint: Any) -> type[Any] | None:
    """The dataclass inside `X`, `X | None`; None for plain values, lists and mappings."""
    candidates = [hint, *getattr(hint, "__args__", ())]
    if getattr(hint, "__origin__", None) in (list, dict, tuple):
        return None
    return next((c for c in candidates if dataclasses.is_dataclass(c)), None)  # type: ignore[return-value]


def _refuse_unknown(
    schema: type[Any], values: Mapping[str, Any], where: str, prefix: str = ""
) -> None:
    fields = _fields(schema)
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(_unknown(f"{prefix}{key}", where, schema, fields, prefix))
        nested = _nested(fields[key])
        if nested is not None and isinstance(value, Mapping):
            _refuse_unknown(nested, value, where, f"{prefix}{key}.")


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
    for name, hint in _fields(schema).items():
        yield f"{prefix}{name}"
        nested = _nested(hint)
        if nested is not None:
            yield from _paths(nested, f"{prefix}{name}.")


def to_yaml(config: Any) -> str:
    """The whole configuration as YAML, every default written out."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(config))


def to_dict(config: Any, *, transient: bool = True) -> dict[str, Any]:
    """The configuration as plain nested dicts; without transient fields when asked so."""
    plain: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        if not transient and field.metadata.get("transient"):
            continue
        value = getattr(config, field.name)
        is_tree = dataclasses.is_dataclass(value)
        plain[field.name] = to_dict(value, transient=transient) if is_tree else value
    return plain


def fingerprint(config: Any) -> str:
    """Sixteen hex digits that change when, and only when, what the run makes changes."""
    text = json.dumps(to_dict(config, transient=False), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Lines `key: old -> new` for the fields that enter the fingerprint and differ."""
    a, b = to_dict(old, transient=False), to_dict(new, transient=False)
    return _dict_differences(a, b, prefix)


def _dict_differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str) -> list[str]:
    lines: list[str] = []
    for key in sorted({*a, *b}):
        left, right = a.get(key), b.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            lines += _dict_differences(left, right, f"{prefix}{key}.")
        elif left != right:
            lines.append(f"{prefix}{key}: {left!r} -> {right!r}")
    return lines
