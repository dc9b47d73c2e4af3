"""Objects that installed packages provide through entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from hpc.errors import ConfigError

T = TypeVar("T")


def load_plugins(group: str, expected: type[T], kind: str) -> list[tuple[EntryPoint, T]]:
    """The installed plug-ins of an entry-point group, by name, each with its entry point.

    Args:
        group: name of the group.
        expected: class that every plug-in must be an instance of.
        kind: what they are, for messages, such as "file format".

    Raises:
        ConfigError: a plug-in does not load or is not an instance of `expected`.
    """
    found = []
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        plugin = load_plugin(point, kind)
        if not isinstance(plugin, expected):
            raise ConfigError(
                f"{kind} plug-in {point.name!r} ({point.value}) is a {type(plugin).__name__}, not "
                f"a {expected.__module__}.{expected.__name__}; correct the entry point"
            )
        found.append((point, plugin))
    return found


def load_plugin(point: EntryPoint, kind: str) -> Any:
    """The object that an entry point names.

    Raises:
        ConfigError: its package cannot be imported or has no such object.
    """
    try:
        return point.load()
    except Exception as error:  # it runs the package's own code
        raise ConfigError(
            f"{kind} plug-in {point.name!r} ({point.value}) does not load: {error}; reinstall the "
            "package it comes from"
        ) from error
