"""The verb `demo`: the whole pipeline on this machine, with the data and models that ship."""

from __future__ import annotations

import argparse

from sarhpc.cli.running import run_verb, submission_options
from sarhpc.cli.verbs import Verbs, add_verb
from sarhpc.stages.templates import template

RUN = "sarhpc-demo"


def add_demo(verbs: Verbs) -> None:
    """Add `demo`."""
    demo = add_verb(
        verbs, "demo", "archive to corpus and report on this machine, in about ten minutes"
    )
    demo.add_argument("run", nargs="?", default=RUN, help=f"run directory (default {RUN})")
    demo.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, a.b=c")
    options = submission_options(executor="local", wait=True)
    demo.set_defaults(handler=demo_verb, cfg=False, first=None, last=None, **vars(options))


def demo_verb(arguments: argparse.Namespace) -> int:
    """Carry out every stage of the template `demo`."""
    arguments.config = str(template("demo"))
    return run_verb(arguments)
