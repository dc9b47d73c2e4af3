"""What every module of verbs is given to add its parsers to."""

from __future__ import annotations

import argparse
from typing import TypeAlias

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_verb(verbs: Verbs, name: str, summary: str) -> argparse.ArgumentParser:
    """Parser of a verb; `summary` is its line in `sarhpc --help` and in its own help."""
    return verbs.add_parser(name, help=summary, description=summary)
