"""The verbs: one module each, or a few that belong together; `main` runs one of them."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code; 130 after Ctrl-C."""
    try:
        return _main(argv)
    except KeyboardInterrupt:
        return 130


def _main(argv: Sequence[str] | None) -> int:
    # Jobs, which inherit this, load pickles and code from the run: only its owner may write there.
    os.umask(os.umask(0o077) | 0o022)
    if argv is None:
        if "_ARGCOMPLETE" in os.environ:
            from sarhpc.cli.completion import complete

            complete()
        from hpc.observe.terminal import display_stream

        _guard_import_path()
        sys.stdout, sys.stderr = display_stream(sys.stdout), display_stream(sys.stderr)
    from sarhpc.cli.parser import build_parser, empty_parser

    words = sys.argv[1:] if argv is None else [*argv]
    if {*words} <= {"-h", "--help"}:
        print(empty_parser().format_help(), end="")
        return 0 if words else 2
    parser = build_parser(words[0])
    # Overrides may follow flags: `run DIR --config C a=b`; argparse alone loses them there.
    arguments, rest = parser.parse_known_args(argv)
    unknown = [word for word in rest if word.startswith("-") or "=" not in word]
    if unknown:
        getattr(arguments, "parser", parser).refuse(unknown)
    if rest and hasattr(arguments, "overrides"):
        arguments.overrides += rest
    elif rest:
        parser.error(f"{arguments.verb} takes no overrides; give them to `init` or `run`")
    if arguments.version:
        from sarhpc import __version__

        print(__version__)
        return 0
    if arguments.verb is None:
        parser.error(f"name a verb: {', '.join(words)} alone does nothing")
    return _carry_out(arguments)


def _guard_import_path() -> None:
    """Keep the working directory off the import path of every process that this one starts.

    Python puts it first for `-m` and `-c`, by which jobs on this machine and checks are started;
    there it may be a folder that anybody can write. Who imports from it here keeps it there.
    """
    with contextlib.suppress(FileNotFoundError):
        if {"", os.getcwd()} & {*sys.path}:
            return
    os.environ["PYTHONSAFEPATH"] = "1"


def _carry_out(arguments: argparse.Namespace) -> int:
    from hpc.errors import HpcError, exit_code_of
    from sarhpc.extras import missing_extra

    try:
        return int(arguments.handler(arguments))
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        print(f"sarhpc {arguments.verb}: {missing}", file=sys.stderr)
        return missing.exit_code
    except HpcError as error:
        print(f"sarhpc {arguments.verb}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # `sarhpc logs RUN | head` closes the pipe early; keep Python from flushing into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        hint = "check its permissions, its disk and its spelling, then repeat the command"
        print(f"sarhpc {arguments.verb}: {error}; {hint}", file=sys.stderr)
        return exit_code_of(error)
