"""The verb `trust`: what is acted on although others can write it."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpc.errors import ConfigError
from hpc.permissions import user_name
from hpc.shell import quoted
from hpc.store.trusted import revoke_trust, trust, trusted_file, trusted_paths
from sarhpc.cli.verbs import Verbs, add_json, add_verb, print_json


def add_trust(verbs: Verbs) -> None:
    """Add `trust`."""
    verb = add_verb(
        verbs, "trust", "declare a run or profile safe that others can write; list what is declared"
    )
    verb.add_argument("path", nargs="?", help="run directory, profile, or folder of runs")
    verb.add_argument("--revoke", action="store_true", help="take the declaration back")
    add_json(verb, "machine-readable list")
    verb.set_defaults(handler=trust_verb)


def trust_verb(arguments: argparse.Namespace) -> int:
    """Declare a path safe, or take that back; without a path list what was declared."""
    if arguments.path is None:
        if arguments.json:
            owners = {name: user_name(owner) for name, owner in sorted(trusted_paths().items())}
            print_json({"file": trusted_file(), "trusted": owners})
            return 0
        for name, owner in sorted(trusted_paths().items()):
            print(f"{name}  of {user_name(owner)}")
        print(f"declared in {trusted_file()}")
        return 0
    path = Path(arguments.path).resolve()
    if arguments.revoke:
        _revoke(path)
    else:
        _declare(path)
    return 0


def _declare(path: Path) -> None:
    if not path.exists():
        raise ConfigError(f"{path} does not exist")
    trust(path)
    if path.is_file() or (path / "run.json").is_file():
        owner = user_name(path.stat().st_uid)
        print(f"{path} of {owner} is trusted: what it says is done with your rights")
    else:
        print(f"no warning any more that runs below {path} could be replaced")
    print(f"declared in {trusted_file()}; to take it back: sarhpc trust {quoted(path)} --revoke")


def _revoke(path: Path) -> None:
    if not revoke_trust(path):
        raise ConfigError(f"{path} was not declared; `sarhpc trust` lists what was")
    print(f"{path} is not trusted any more")
