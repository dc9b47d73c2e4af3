"""Layered configuration: structured defaults < YAML < dotlist, checked, frozen, fingerprinted.

A schema is a tree of plain dataclasses. A field with `metadata={"transient": True}` (worker counts,
logging) changes how a run executes and not what it produces, so the fingerprint leaves it out. One
with `metadata={"added": True}` came with a later version and enters the fingerprint only when it is
set, so that runs frozen before keep theirs.

`${oc.env:NAME}` is resolved as `hpc.resolvers` allows it.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from hpc.config_faults import faults, reason_of
from hpc.config_keys import nested_schema, unknown_keys
from hpc.documents import check_yaml
from hpc.errors import ConfigError, HpcError
from hpc.frozen_config import DECLINED, fields_of, read_frozen, typed
from hpc.regular_files import open_regular
from hpc.resolvers import Origin, interpolations, literal, origin_of

T = TypeVar("T")


def load(schema: type[T], yaml: Path | None = None, overrides: Sequence[str] = ()) -> T:
    """A configuration of type `schema` from defaults, then YAML, then `a.b=c` overrides.

    Raises:
        ConfigError: unknown key (with the nearest names), wrong type, missing value, bad file, a
            resolver that is not allowed there.
    """
    text, origin = ("", "own") if yaml is None else read_yaml(yaml)
    return loads(schema, text, overrides, source=str(yaml or "defaults"), origin=origin)


def loads(
    schema: type[T],
    yaml_text: str,
    overrides: Sequence[str] = (),
    *,
    source: str = "text",
    origin: Origin = "own",
) -> T:
    """As `load`, from the text of a YAML document; `origin` decides what is resolved in it."""
    words = tuple(overrides)
    # What the environment decides is not remembered.
    parse = _read_layers if "${" in f"{yaml_text}{words}" else _parsed
    # mypy does not count a class as Hashable.
    return cast("T", copy.deepcopy(parse(schema, yaml_text, words, source, origin)))  # type: ignore[arg-type]


def resolved(yaml: Path | None, overrides: Sequence[str] = ()) -> dict[str, str]:
    """The values of a configuration that were references or resolvers, as written, by key."""
    from omegaconf import OmegaConf

    words = OmegaConf.to_container(OmegaConf.from_dotlist(_checked_overrides(overrides)))
    found = interpolations(words, "the command line", "own")
    if yaml is not None:
        text, origin = read_yaml(yaml)
        text = _mapping(check_yaml(text), str(yaml))
        document = OmegaConf.to_container(OmegaConf.create(text))
        found = interpolations(document, str(yaml), origin) | found
    return found


def _read_layers(
    schema: type[Any], yaml_text: str, overrides: tuple[str, ...], source: str, origin: Origin
) -> Any:
    try:
        for text in (yaml_text, *(override.partition("=")[2] for override in overrides)):
            check_yaml(text)
        if not overrides and (origin == "frozen" or "${" not in yaml_text):
            frozen = read_frozen(schema, yaml_text)
            if frozen is not DECLINED:
                return frozen
        return _merged(schema, yaml_text, overrides, source, origin)
    except Exception as error:  # OmegaConf and its grammar assert and miss keys, among others
        found = _faults(schema, yaml_text, overrides, source)
        if found:
            raise ConfigError("\n".join(found)) from error
        if isinstance(error, HpcError):
            raise
        key = getattr(error, "full_key", None)
        at = f" at {key!r}" if key else ""
        raise ConfigError(f"invalid configuration in {source}{at}: {reason_of(error)}") from error


def _faults(
    schema: type[Any], yaml_text: str, overrides: tuple[str, ...], source: str
) -> list[str]:
    """All wrong values and keys of both layers; none where the document cannot be parsed."""
    from omegaconf import OmegaConf

    def values(of: Callable[[], Any]) -> dict[str, Any] | None:
        """Keys and values; None for what is not parsed."""
        try:
            return cast("dict[str, Any]", OmegaConf.to_container(of()))
        except Exception:  # as in `_read_layers`
            return None

    document = values(lambda: OmegaConf.create(_mapping(yaml_text, source)))
    if document is None or any("=" not in word for word in overrides):
        return []

    def merge(below: Mapping[str, Any], words: Sequence[str]) -> object:
        """Some of the values over the defaults."""
        layers = OmegaConf.create(dict(below)), OmegaConf.from_dotlist(list(words))
        return OmegaConf.merge(_defaults(schema), *layers)  # type: ignore[arg-type]

    def parsed_override(word: str) -> dict[str, Any]:
        """Key and value of an override; empty for what is not parsed."""
        return values(lambda: OmegaConf.from_dotlist([word])) or {}

    parsed = {word: parsed_override(word) for word in overrides}
    return faults(schema, document, source, parsed, merge)


_parsed = functools.lru_cache(maxsize=8)(_read_layers)
"""As `_read_layers`; callers take copies, as they may change theirs."""


def _merged(
    schema: type[Any], yaml_text: str, overrides: tuple[str, ...], source: str, origin: Origin
) -> Any:
    import yaml
    from omegaconf import OmegaConf

    document: Any = _mapping(yaml_text, source)
    if origin == "frozen" and "${" in yaml_text:
        document = literal(yaml.safe_load(document))
    document = OmegaConf.create(document)
    dotlist = OmegaConf.from_dotlist(_checked_overrides(overrides))
    plain: Any = _plain_defaults(schema)  # type: ignore[arg-type]
    layers = (
        (cast("dict[str, Any]", OmegaConf.to_container(document)), source, origin),
        (cast("dict[str, Any]", OmegaConf.to_container(dotlist)), "the command line", "own"),
    )
    unknown = [line for values, where, _ in layers for line in unknown_keys(schema, values, where)]
    if unknown:
        raise ConfigError("\n".join(unknown))
    for values, where, of in layers:
        interpolations(values, where, of)
        plain = _overlaid(schema, plain, values)
    if "${" not in f"{yaml_text}{overrides}":
        config = typed(schema, copy.deepcopy(plain))
        if config is not DECLINED:
            return config
    # merge copies its first argument, so the defaults stay as they are.
    defaults = _defaults(schema)  # type: ignore[arg-type]
    merged = OmegaConf.merge(defaults, document, dotlist)
    _refuse_missing(merged, source)
    config = OmegaConf.to_object(merged)
    refuse_mistyped(config, source)
    return config


@functools.lru_cache(maxsize=8)
def _defaults(schema: type[Any]) -> Any:
    """The defaults of `schema` as an OmegaConf tree; building it takes longer than a merge."""
    from omegaconf import OmegaConf

    return OmegaConf.structured(schema)


@functools.lru_cache(maxsize=8)
def _plain_defaults(schema: type[Any]) -> Any:
    """The defaults of `schema` as nested dicts."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(_defaults(schema))  # type: ignore[arg-type]


def _overlaid(schema: type[Any], below: Any, above: Mapping[str, Any]) -> dict[str, Any]:
    """The values `below` of a dataclass with those of `above`, as OmegaConf merges them."""
    merged = dict(below)
    for key, value in above.items():
        nested, old = nested_schema(fields_of(schema)[key]), below[key]
        if nested is not None and isinstance(value, dict):
            # A part that is None until something in it is set has its own defaults.
            start = _plain_defaults(nested) if old is None else old  # type: ignore[arg-type]
            merged[key] = _overlaid(nested, start, value)
        else:
            both = isinstance(old, dict) and isinstance(value, dict)
            merged[key] = old | value if both else value
    return merged


def read_yaml(path: Path) -> tuple[str, Origin]:
    """The text of a configuration file, and who wrote it.

    Raises:
        ConfigError: it is missing, or no UTF-8 text.
    """
    if not path.is_file():
        raise ConfigError(
            f"no configuration file {path}; those that ship are given by name: --template NAME"
        )
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8") as file:
            # Of the file that is open: another one may take its name meanwhile.
            return file.read(), origin_of(path, os.fstat(file.fileno()))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {path} cannot be read: {error}") from error


def _mapping(text: str, source: str) -> str:
    """`text` if it is a YAML mapping; an empty document counts as `{}`."""
    import yaml

    # libyaml parses six times as fast; wheels of PyYAML have it, other builds may not.
    root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if root is None or root.tag == "tag:yaml.org,2002:null":
        return "{}"
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"configuration from {source} must be keys and values, not {text[:40]!r}")
    return text


def _checked_overrides(overrides: Sequence[str]) -> list[str]:
    for override in overrides:
        if "=" not in override:
            raise ConfigError(f"{override!r} is not an override: write key.subkey=value")
    return list(overrides)


def _refuse_missing(merged: Any, source: str) -> None:
    from omegaconf import OmegaConf

    missing = sorted(OmegaConf.missing_keys(merged))
    if missing:
        raise ConfigError(
            f"configuration from {source} lacks {', '.join(missing)}; "
            f"give it in the YAML or as {missing[0]}=VALUE"
        )


def refuse_mistyped(config: Any, source: str) -> None:
    """Raise ConfigError for items of lists and mappings that are not of the declared type.

    OmegaConf converts plain items, but takes a list or a mapping in place of a text.

    Raises:
        ConfigError: the message names the key.
    """
    for key, hint in fields_of(type(config)).items():
        value = getattr(config, key)
        if dataclasses.is_dataclass(value):
            refuse_mistyped(value, source)
            continue
        for item in _items(hint, value):
            if dataclasses.is_dataclass(item):
                refuse_mistyped(item, source)
            elif not isinstance(item, str | int | float | None):
                raise ConfigError(
                    f"configuration in {source}: an item of {key} is {item!r:.60}: write one value"
                )


def _items(hint: Any, value: Any) -> list[Any]:
    """The items of a list or a mapping, and those of the lists in a mapping of lists."""
    if not isinstance(value, list | dict):
        return []
    items = list(value.values() if isinstance(value, dict) else value)
    for each in (hint, *getattr(hint, "__args__", ())):
        if _items_of(each):
            # A mapping of lists: `each` is what its values are.
            nested = getattr(hint, "__origin__", None) is dict and each is not hint
            return [inner for item in items for inner in item] if nested else items
    return []


def _items_of(hint: Any) -> bool:
    """Whether a hint is a list or a mapping of plain values or dataclasses."""
    if getattr(hint, "__origin__", None) not in (list, dict):
        return False
    kind = hint.__args__[-1]
    return isinstance(kind, type) or dataclasses.is_dataclass(kind)


def to_yaml(config: Any) -> str:
    """The complete configuration as YAML, including all defaults."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf._utils import get_omega_conf_dumper

    plain = to_dict(config)
    if typed(type(config), plain) is DECLINED:
        return OmegaConf.to_yaml(OmegaConf.structured(config))
    # As `OmegaConf.to_yaml`, whose tree checks and converts every value: slow, and not needed here.
    written: str = yaml.dump(
        plain, default_flow_style=False, allow_unicode=True, sort_keys=False,
        Dumper=get_omega_conf_dumper(),
    )  # fmt: skip
    return written


def to_dict(config: Any, *, transient: bool = True) -> dict[str, Any]:
    """The configuration as nested dicts, with or without transient fields."""
    return _chosen(config, lambda field, _: transient or not field.metadata.get("transient"))


def decisive(config: Any) -> dict[str, Any]:
    """The values in the fingerprint: `to_dict` without transient fields and unset added ones."""
    return _chosen(config, _is_decisive)


def _is_decisive(field: dataclasses.Field[Any], value: Any) -> bool:
    made = field.default_factory
    default = field.default if made is dataclasses.MISSING else made()
    unset = bool(field.metadata.get("added")) and value == default
    return not (unset or field.metadata.get("transient"))


_Choice = Callable[[dataclasses.Field[Any], Any], bool]


def _chosen(config: Any, keep: _Choice) -> dict[str, Any]:
    values = ((field, getattr(config, field.name)) for field in dataclasses.fields(config))
    return {field.name: _plain(value, keep) for field, value in values if keep(field, value)}


def _plain(value: Any, keep: _Choice) -> Any:
    if dataclasses.is_dataclass(value):
        return _chosen(value, keep)
    if isinstance(value, list | tuple):
        return [_plain(item, keep) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item, keep) for key, item in value.items()}
    return value


def fingerprint(config: Any) -> str:
    """Sixteen hex digits over the values that determine what the run produces."""
    text = json.dumps(decisive(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(old: Any, new: Any, *, transient: bool = False) -> list[str]:
    """Lines `key: old -> new` for the fields that differ; with `transient` also transient ones."""
    a, b = to_dict(old, transient=transient), to_dict(new, transient=transient)
    return _dict_differences(a, b, "")


def changes_since(frozen: Mapping[str, Any], config: Any) -> list[str]:
    """Lines `key: old -> new` for the values that differ from those of a frozen configuration.

    Keys that only one side has (another version of the schema) and transient ones are ignored.
    """
    now = to_dict(config, transient=False)
    return [
        line for key in sorted({*frozen} & {*now}) for line in _changes(frozen[key], now[key], key)
    ]


def _changes(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        both = sorted({*old} & {*new})
        return [line for key in both for line in _changes(old[key], new[key], f"{path}.{key}")]
    return [f"{path}: {old!r} -> {new!r}"] if old != new else []


def _dict_differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str) -> list[str]:
    lines: list[str] = []
    for key in sorted({*a, *b}):
        left, right = a.get(key), b.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            lines += _dict_differences(left, right, f"{prefix}{key}.")
        elif left != right:
            lines.append(f"{prefix}{key}: {left!r} -> {right!r}")
    return lines
