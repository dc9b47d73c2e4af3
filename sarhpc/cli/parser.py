"""The parser of the verbs. Each module of verbs adds its own and names what carries it out.

Only what adds the wanted verb is imported, and these modules import the science inside their
functions.
"""

from __future__ import annotations

import argparse
import importlib

from sarhpc.cli.verb_groups import PARTS, grouped_help
from sarhpc.cli.verbs import Parser

DESCRIPTION = "From an airborne SAR archive to a text-to-SAR generator and its corpora."
EPILOG = """\
A run is one directory and one configuration, frozen by its first job. Each stage has a verb, `run`
carries out all of them, and any verb may be repeated at any time. `sarhpc VERB --help` has the
flags of a verb and an example.

Exit codes: 0 done, 1 operational, 2 usage or configuration, 3 numerical, 4 verification failed,
5 incomplete, 75 transient (try again).
"""


class SarhpcParser(Parser):
    """The parser of the whole program, whose help shows the verbs in their groups."""

    def format_help(self) -> str:
        """Usage, groups of verbs, exit codes."""
        flags = "-h, --help       show this help\n  --version        print the version"
        usage = "usage: sarhpc [-h] [--version] VERB ..."
        return f"{usage}\n\n{DESCRIPTION}\n\n{grouped_help()}\noptions:\n  {flags}\n\n{EPILOG}"


def build_parser(verb: str | None = None) -> Parser:
    """Parser of every verb and flag, or of `verb` alone if it is one.

    The result of parsing carries its `handler`.
    """
    parser = empty_parser()
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)
    wanted = [PARTS[verb]] if verb in PARTS else list(PARTS.values())
    for part in dict.fromkeys(wanted):
        module, _, name = part.partition(":")
        getattr(importlib.import_module(module), name)(verbs)
    return parser


def empty_parser() -> SarhpcParser:
    """The parser without any verb, to print its help."""
    parser = SarhpcParser(prog="sarhpc", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="store_true", help="print the version")
    return parser
