"""Completion of verbs, flags, settings, profiles and stages in a shell, by argcomplete.

A shell in which `eval "$(register-python-argcomplete sarhpc)"` was typed starts the command at each
TAB with `_ARGCOMPLETE` set; nothing here is imported otherwise.
"""

from __future__ import annotations

import argparse
import os
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from argcomplete import CompletionFinder
from argcomplete.lexers import split_line

from hpc.cluster.profile import profile_names
from hpc.config_keys import nested_schema
from hpc.frozen_config import fields_of
from sarhpc.cli.parser import build_parser, empty_parser
from sarhpc.cli.verb_groups import ENTRIES, PARTS
from sarhpc.cli.verbs import Parser

OF_STAGES = frozenset({"--from", "--until", "--stage"})
"""Flags that take the name of a stage, unless it is said here that they do not."""
OTHERS = frozenset({("fetch", "--from")})


def complete() -> None:
    """Print what may come next in the line of the shell, and end the process."""
    line, point = os.environ["COMP_LINE"], int(os.environ["COMP_POINT"])
    _, _, _, words, _ = split_line(line, point)
    verb = words[1] if len(words) > 1 else None
    parser = _names_of_verbs() if verb not in PARTS else build_parser(verb)
    for action in _actions(parser):
        _attach_completer(action, verb)
    _Finder()(parser, always_complete_options="long")


def _names_of_verbs() -> Parser:
    """A parser that knows nothing but the names of the verbs, for the first word."""
    parser = empty_parser()
    verbs = parser.add_subparsers(dest="verb", parser_class=Parser)
    for name, entry in ENTRIES.items():
        verbs.add_parser(name, help=entry.summary)
    return parser


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The actions of a parser and of those of its verbs."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)


def _attach_completer(action: argparse.Action, verb: str | None) -> None:
    flags = {*action.option_strings}
    complete: Any = None
    if "--profile" in flags:
        complete = _profiles
    elif "--template" in flags:
        complete = _templates
    elif flags & OF_STAGES and not {(verb, flag) for flag in flags} & OTHERS:
        complete = _stages
    elif action.dest == "overrides":
        complete = _settings
    if complete is not None:
        action.completer = complete  # type: ignore[attr-defined]


def _profiles(prefix: str, **_: Any) -> list[str]:
    """Names of profiles, and files where a path was begun."""
    return _files(prefix) if "/" in prefix else profile_names()


def _files(prefix: str) -> list[str]:
    folder, _, name = prefix.rpartition("/")
    found = sorted(Path(folder or "/").glob(f"{name}*"))
    return [f"{path}/" if path.is_dir() else str(path) for path in found]


def _templates(**_: Any) -> list[str]:
    from sarhpc.stages.templates import template_names

    return list(template_names())


def _stages(**_: Any) -> list[str]:
    from sarhpc.stages.registry import STAGES

    return [spec.name for spec in STAGES]


def _settings(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Keys that go on as was begun, or the values of a whole one."""
    schema = _schema_of(parsed_args.verb)
    if schema is None:
        return []
    path, begun, _value = prefix.partition("=")
    *branches, name = path.split(".")
    for branch in branches:
        schema = nested_schema(fields_of(schema).get(branch))
        if schema is None:
            return []
    if begun:
        return [f"{path}={value}" for value in _values(fields_of(schema).get(name))]
    return list(_keys(schema, "".join(f"{branch}." for branch in branches), name))


def _keys(schema: type[Any], before: str, name: str) -> Iterator[str]:
    """Keys of `schema` that begin with `name`; in place of a branch that is the only one its own.

    A shell would put a space behind an only word, and a branch is none.
    """
    found = {key: hint for key, hint in fields_of(schema).items() if key.startswith(name)}
    for key, hint in found.items():
        below = nested_schema(hint)
        if below is not None and len(found) == 1:
            yield from _keys(below, f"{before}{key}.", "")
        else:
            yield f"{before}{key}{'=' if below is None else '.'}"


def _schema_of(verb: str) -> type[Any] | None:
    """What the overrides of a verb are settings of."""
    if verb in ("init", "run"):
        from sarhpc.stages.config import RunConfig

        return RunConfig
    if verb == "decoder":
        from sarhpc.diffusion.config import DecoderConfig

        return DecoderConfig
    if verb == "evaluate":
        from sarhpc.evaluation.config import EvaluateConfig

        return EvaluateConfig
    return None


def _values(hint: Any) -> list[str]:
    """All values of a setting, where they are few."""
    parts = (hint, *typing.get_args(hint))
    found = ["false", "true"] if bool in parts else []
    return found + (["null"] if type(None) in parts else [])


class _Finder(CompletionFinder):  # type: ignore[misc]  # mypy skips argcomplete
    """Knows that settings may follow flags, where argparse alone expects no word any more."""

    def collect_completions(
        self,
        active_parsers: list[argparse.ArgumentParser],
        parsed_args: argparse.Namespace,
        cword_prefix: str,
    ) -> list[str]:
        """What may come next."""
        found: list[str] = super().collect_completions(active_parsers, parsed_args, cword_prefix)
        takes_settings = any(action.dest == "overrides" for action in active_parsers[-1]._actions)
        if takes_settings and not found and not cword_prefix.startswith("-"):
            named = _settings(cword_prefix, parsed_args)
            return [word for word in named if word.startswith(cword_prefix)]
        return found
