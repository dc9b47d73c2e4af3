"""The text of a frozen configuration: its values, and what they were before they were resolved."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable
from pathlib import Path

from hpc.config import resolved, to_yaml
from sarhpc.stages.config import RunConfig


def frozen_text(
    config: RunConfig,
    arguments: argparse.Namespace,
    before: str = "",
    changes: Iterable[str] = (),
) -> str:
    """The configuration as YAML, under a comment for each value that was resolved.

    Args:
        config: the values.
        arguments: the file and the overrides that they came from.
        before: the text that this one replaces, of which the comments are kept.
        changes: lines `key: old -> new`; the comments of these keys are not kept.
    """
    yaml = Path(arguments.config) if arguments.config else None
    found = sorted(resolved(yaml, arguments.overrides).items())
    # A key of a mapping may be any text, and must not begin a line of its own.
    lines = [f"{_was(key)}{json.dumps(text)}\n" for key, text in found]
    stale = tuple(_was(line.partition(":")[0]) for line in changes)
    comments = itertools.takewhile(_is_comment, before.splitlines(keepends=True))
    kept = [line for line in comments if not line.startswith(stale)]
    return "".join(dict.fromkeys([*kept, *lines])) + to_yaml(config)


def _was(key: str) -> str:
    return f"# {json.dumps(key)[1:-1]} was "


def _is_comment(line: str) -> bool:
    return line.startswith("#")
