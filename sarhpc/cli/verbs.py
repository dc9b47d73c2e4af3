"""What every module of verbs is given to add its parsers to."""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from hpc.errors import ConfigError, DataError, VerificationError
from sarhpc.cli.verb_groups import ENTRIES

Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"


def add_verb(verbs: Verbs, name: str, summary: str) -> argparse.ArgumentParser:
    """Parser of a verb; `summary` is its line in `sarhpc --help` and in its own help."""
    entry = ENTRIES.get(name)
    verb = verbs.add_parser(
        name,
        help=summary,
        description=summary,
        aliases=() if entry is None else entry.aliases,
        epilog=None if entry is None else f"example:\n  sarhpc {entry.example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(parser=verb)
    return verb


def add_json(verb: argparse.ArgumentParser, what: str = "machine-readable") -> None:
    """Add `--json`."""
    verb.add_argument("--json", action="store_true", help=what)


def print_json(document: Any) -> None:
    """Print the result of a verb as one JSON document."""
    print(json.dumps(document, indent=1, default=str))


class Parser(argparse.ArgumentParser):
    """A parser whose errors name what is spelled nearly like a wrong verb, choice or flag."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message, exit code 2; of many choices only the nearest are shown."""
        wrong = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)$", message)
        if wrong is not None:
            choices = [choice.strip("' ") for choice in wrong[2].split(",")]
            near = _near(wrong[1], choices)
            message = message.replace(f" (choose from {wrong[2]})", near) if near else message
        super().error(message)

    def refuse(self, words: Iterable[str]) -> NoReturn:
        """Print usage and the arguments that this verb does not have, exit code 2."""
        known = re.findall(r"--[\w-]+", self.format_help())
        named = [f"{word}{_near(word.partition('=')[0], known)}" for word in words]
        self.error(f"unknown arguments: {' '.join(named)}")


def _near(word: str, known: Iterable[str]) -> str:
    found = list(dict.fromkeys(difflib.get_close_matches(word, list(known), n=3)))
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def existing_path(name: str | Path, what: str) -> Path:
    """The path `name`, which a verb was given to read.

    Raises:
        ConfigError: nothing is there.
    """
    path = Path(name)
    if not path.exists():
        raise ConfigError(f"{path} does not exist; name {what}")
    return path


@contextmanager
def reading_finished_data() -> Iterator[None]:
    """Data that cannot be used as they are end a verb that only reads them with exit code 4.

    Raises:
        VerificationError: in the place of a DataError; repeating the command does not help.
    """
    try:
        yield
    except DataError as error:
        raise VerificationError(str(error)) from error
