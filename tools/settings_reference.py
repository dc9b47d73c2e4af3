"""The reference of settings: one page for each branch of the configuration, from the source.

A setting is a field of a dataclass; the string after it is its text, as a reader of the code sees
it. Ranges are those of `sarhpc.stages.number_ranges`, and those that parts of the program check
themselves.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import re
import textwrap
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from checked_ranges import TEXTS

from hpc.cluster.profile import Profile
from sarhpc.archive.declaration import CHOICES, Declaration
from sarhpc.stages.config import RunConfig
from sarhpc.stages.number_ranges import RANGES
from sarhpc.stages.registry import STAGES


@dataclass(frozen=True)
class Setting:
    """One field of a configuration."""

    key: str
    kind: str
    default: str | None
    """As YAML; None where it has to be given."""
    text: str
    bounds: str
    group: bool
    """Whether it has settings of its own."""


def settings(schema: type, prefix: str = "") -> Iterator[Setting]:
    """Every field of the dataclass `schema` and of those in it, depth first."""
    hints, texts = typing.get_type_hints(schema), _texts(schema)
    for field in dataclasses.fields(schema):
        key, hint = f"{prefix}{field.name}", hints[field.name]
        nested = next(_nested(hint), None)
        bounds = str(RANGES.get(key.replace("[]", ""), TEXTS.get(key, "")))
        yield Setting(key, kind_of(hint), _default(field), texts.get(field.name, ""), bounds,
                      nested is not None)  # fmt: skip
        if nested is not None:
            yield from settings(nested, f"{key}{_step(hint)}.")


def kind_of(hint: Any) -> str:
    """A type as a user writes values of it."""
    if hint is type(None):
        return "null"
    if dataclasses.is_dataclass(hint):
        return "settings"
    parts = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(kind_of(part) for part in parts)
    if origin is list:
        return f"list of {kind_of(parts[0])}"
    if origin is dict:
        return f"mapping of {kind_of(parts[0])} to {kind_of(parts[1])}"
    names = {str: "text", int: "integer", float: "number", bool: "true or false"}
    return names.get(hint, str(hint))


def settings_pages() -> dict[str, str]:
    """Name of a page -> its Markdown: an overview, and a page for each branch."""
    found = list(settings(RunConfig))
    branches = [item for item in found if "." not in item.key]
    pages = {"index.md": _overview(branches, found)}
    for branch in branches:
        own = [item for item in found if item.key.startswith(f"{branch.key}.")]
        if own:
            pages[f"{branch.key}.md"] = _branch_page(branch, own)
    pages["profile.md"] = _profile_page()
    pages["declarations.md"] = _declarations_page()
    return pages


def _overview(branches: list[Setting], found: list[Setting]) -> str:
    number = sum(not item.group for item in found)
    lines = [
        "# Settings of a run\n",
        f"The configuration of a run has {number} settings. A value comes from, in this order: its "
        "default, the YAML file of `--config`, `key=value` on the command line. "
        "`sarhpc run RUN --config FILE --cfg` prints the result. A key that does not exist is an "
        "error that names the nearest.\n",
        "`cluster` and worker counts do not change what is made. Everything else is part of the "
        "fingerprint of the stages that read it.\n",
        "| branch | read by | |",
        "|---|---|---|",
    ]
    for branch in branches:
        has_page = any(item.key.startswith(f"{branch.key}.") for item in found)
        name = f"[`{branch.key}`]({branch.key}.md)" if has_page else f"`{branch.key}`"
        lines.append(f"| {name} | {_readers(branch.key)} | {_cell(branch.text)} |")
    lines += [
        "",
        "A [profile](profile.md) describes a cluster; [declarations](declarations.md) state what "
        "files of an archive do not.",
        "",
        "<!-- settings without a page -->",
        *(_block(item, 2) for item in branches if not item.group),
    ]
    return "\n".join(lines) + "\n"


def _readers(branch: str) -> str:
    names = [spec.name for spec in STAGES if branch in spec.branches]
    return ", ".join(names) or "every stage"


def _branch_page(branch: Setting, own: list[Setting]) -> str:
    lines = [f"# {branch.key}\n", _markdown(branch.text), ""]
    optional = branch.default == "null"
    lines.append(f"Read by: {_readers(branch.key)}." + (
        f" Left out by default; `{branch.key}: {{}}` takes all defaults of the branch."
        if optional else ""))  # fmt: skip
    lines.append("")
    lines += [_block(item, 2 if item.group else 3) for item in own]
    return "\n".join(lines) + "\n"


def _profile_page() -> str:
    lines = [
        "# Profile of a cluster\n",
        "Settings of a file in `slurm/profiles/`, chosen by `--profile NAME`; "
        "`sarhpc doctor --write-profile` drafts one. How they work together: "
        "[On a cluster](../../guide/cluster.md#the-profile).\n",
    ]
    own = [item for item in settings(Profile) if item.key != "file"]
    return "\n".join(lines + [_block(item, 2 if item.group else 3) for item in own]) + "\n"


def _declarations_page() -> str:
    lines = [
        "# Declarations of files\n",
        "Entries of `sarhpc.yaml` beside the files of an archive, under `defaults` and under each "
        "pattern of `files`; `sarhpc catalog` reads it and drafts it "
        "([example](../../scenes.md#declaring-missing-metadata)). None is required of a file that "
        "states it itself.\n",
    ]
    for item in settings(Declaration):
        chosen = CHOICES.get(item.key)
        bounds = f"one of {', '.join(f'`{choice}`' for choice in chosen)}" if chosen else ""
        lines.append(_block(dataclasses.replace(item, default=None, bounds=bounds), 3))
    return "\n".join(lines) + "\n"


def _block(item: Setting, level: int) -> str:
    facts = [item.kind if item.kind != "settings" else ""]
    if item.default is not None and not item.group:
        facts.append(f"default `{item.default}`")
    elif item.group and item.default == "null":
        facts = ["left out by default"]
    facts.append(item.bounds)
    line = "; ".join(fact for fact in facts if fact)
    return (
        f"{'#' * level} `{item.key}` {{ #{item.key} }}\n\n"
        + (f"*{line}*\n\n" if line else "")
        + f"{_markdown(item.text)}\n"
    )


def _markdown(text: str) -> str:
    """The text of a field, with the pages that it names as links."""

    def link(found: re.Match[str]) -> str:
        return f"[{found[1]}](../../{found[1]})"

    return re.sub(r"\bdocs/([\w./-]+\.md)", link, " ".join(text.split()))


def _cell(text: str) -> str:
    return _markdown(text).replace("|", "\\|")


def _default(field: dataclasses.Field[Any]) -> str | None:
    if field.default is not dataclasses.MISSING:
        value: Any = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return None
    if dataclasses.is_dataclass(value):
        return ""
    return _yaml(value)


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(_yaml(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and not value.strip():
        return '""'
    return f"{value}"


def _nested(hint: Any) -> Iterator[type]:
    if dataclasses.is_dataclass(hint):
        yield typing.cast("type", hint)
    for part in typing.get_args(hint):
        yield from _nested(part)


def _step(hint: Any) -> str:
    """What stands between the key of a collection and those of its items."""
    if typing.get_origin(hint) is dict:
        return ".NAME"
    return "[]" if typing.get_origin(hint) is list else ""


@functools.cache
def _texts(schema: type) -> dict[str, str]:
    """Field -> the string after it in the source, those of a parent class first."""
    found: dict[str, str] = {}
    for parent in reversed(schema.__mro__):
        if not dataclasses.is_dataclass(parent):
            continue
        [tree] = ast.parse(textwrap.dedent(inspect.getsource(parent))).body
        body = typing.cast("ast.ClassDef", tree).body
        for statement, following in itertools.pairwise(body):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                match following:
                    case ast.Expr(ast.Constant(str(text))):
                        found[statement.target.id] = text
    return found
