"""The reference of verbs: one page, from the parser of the command line."""

from __future__ import annotations

import argparse
import re

from sarhpc.cli.parser import build_parser


def verbs_page() -> str:
    """Markdown of every verb with its arguments, in the order of `sarhpc --help`."""
    parser = build_parser()
    [verbs] = [item for item in parser._actions if isinstance(item, argparse._SubParsersAction)]
    summaries = {choice.dest: choice.help or "" for choice in verbs._choices_actions}
    shown = [name for name in verbs.choices if summaries.get(name) not in (None, argparse.SUPPRESS)]
    lines = [
        "# Verbs\n",
        "`sarhpc VERB --help` prints the same. Any verb may be repeated at any time; "
        "`key=value` after the flags overrides [settings](settings/index.md) where a verb takes "
        "them. Exit codes are in [Troubleshooting](../troubleshooting.md#exit-codes).\n",
        "| verb | |",
        "|---|---|",
        *(f"| [`{name}`](#{name}) | {_text(summaries[name])} |" for name in shown),
        "",
    ]
    for name in shown:
        lines += _verb(name, verbs.choices[name])
    return "\n".join(lines) + "\n"


def _verb(name: str, verb: argparse.ArgumentParser) -> list[str]:
    usage = " ".join(verb.format_usage().removeprefix("usage: ").split())
    lines = [f"## {name} {{ #{name} }}\n", f"{_text(verb.description or '')}.\n"]
    lines += ["```text", *_wrapped(usage), "```\n"]
    rows = [item for item in verb._actions if not isinstance(item, argparse._HelpAction)]
    rows = [item for item in rows if item.help != argparse.SUPPRESS]
    if rows:
        lines += ["| argument | |", "|---|---|"]
        lines += [f"| {_spelling(item)} | {_help(item, verb)} |" for item in rows]
    if verb.epilog:
        lines += ["", "```text", verb.epilog.strip(), "```"]
    return [*lines, ""]


def _spelling(action: argparse.Action) -> str:
    if not action.option_strings:
        name = str(action.metavar or action.dest)
        return f"`{name}`"
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    if action.choices is not None and not action.metavar:
        value = f" {'|'.join(str(choice) for choice in action.choices)}".replace("|", "\\|")
    return ", ".join(f"`{flag}{value}`" for flag in action.option_strings)


def _help(action: argparse.Action, verb: argparse.ArgumentParser) -> str:
    text = action.help or ""
    values = vars(action) | {"prog": verb.prog}
    text = text % values if "%" in text else text
    default = action.default
    if default not in (None, False, [], argparse.SUPPRESS) and "default" not in text:
        text += f" (default {default})"
    return _text(text)


def _text(text: str) -> str:
    """One line; words of the shell as code, so that nothing in them is Markdown."""
    text = " ".join(text.split()).replace("|", "\\|")
    text = re.sub(r"(?<![\w`/])(--[a-z][\w-]*|[a-z_]+(?:\.[a-z_]+)+)(?![\w`])", r"`\1`", text)
    return re.sub(r"<|>|\*", lambda found: f"\\{found[0]}", text)


def _wrapped(usage: str, width: int = 88) -> list[str]:
    lines, line = [], ""
    for word in re.findall(r"\[[^\]]*\](?:\s?\.\.\.)?|\S+", usage):
        if line and len(line) + len(word) + 1 > width:
            lines.append(line)
            line = "   "
        line = f"{line} {word}" if line else word
    return [*lines, line]
