"""The verbs `stop` and `cancel`."""

from __future__ import annotations

import argparse

from hpc.shell import quoted
from sarhpc.cli.own_run import own_run
from sarhpc.cli.verbs import Verbs, add_verb


def add_stop_and_cancel(verbs: Verbs) -> None:
    """Add `stop` and `cancel`."""
    stop = add_verb(verbs, "stop", "save and stop; stays stopped until `resume`")
    stop.add_argument("run", help="run directory")
    stop.set_defaults(handler=stop_verb)
    cancel = add_verb(verbs, "cancel", "request a stop and cancel queued jobs")
    cancel.add_argument("run", help="run directory")
    cancel.add_argument("--now", action="store_true", help="skip the final checkpoint")
    cancel.set_defaults(handler=cancel_verb)


def stop_verb(arguments: argparse.Namespace) -> int:
    """Request that the run saves and stops, until `resume`."""
    from sarhpc.launch.stopping import request_stop

    request_stop(own_run(arguments.run))
    resume = f"sarhpc resume {quoted(arguments.run)}"
    print(f"stop requested; work saves first. Continue later with: {resume}")
    return 0


def cancel_verb(arguments: argparse.Namespace) -> int:
    """Stop until `resume`; waiting jobs leave the queue, running ones save first."""
    from sarhpc.launch.moved_jobs import cancel_moved_jobs
    from sarhpc.launch.stopping import cancel_jobs

    run = own_run(arguments.run)
    cancel_moved_jobs(run)
    return cancel_jobs(run, now=arguments.now)
