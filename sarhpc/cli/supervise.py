"""The verb `supervise`."""

from __future__ import annotations

import argparse

from hpc.errors import HpcError, RunInUseError
from hpc.store.rundir import RunDir
from sarhpc.cli.own_run import own_run
from sarhpc.cli.verbs import Verbs, add_verb

EVERY_S = {"slurm": 120.0, "local": 10.0}
"""Seconds between two passes, by executor."""


def add_supervise(verbs: Verbs) -> None:
    """Add `supervise`."""
    verb = add_verb(verbs, "supervise", "submit again what is lost, until every stage is sealed")
    verb.add_argument("run", help="run directory")
    verb.add_argument("--profile", help="cluster, as for `run` (default: that of the last job)")
    verb.add_argument("--executor", choices=["slurm", "local"],
                      help="how work reaches a machine (default: that of the profile)")  # fmt: skip
    verb.add_argument("--until", metavar="STAGE", help="end once this stage is sealed")
    verb.add_argument("--once", action="store_true", help="one pass, for cron or scrontab")
    verb.add_argument("--every", type=float, metavar="S",
                      help="seconds between passes (default 120; on this machine 10)")  # fmt: skip
    verb.add_argument("--print-scrontab", action="store_true",
                      help="print an entry of scrontab with a pass every ten minutes")  # fmt: skip
    verb.add_argument("--in-job", metavar="STAGE", help=argparse.SUPPRESS)
    verb.set_defaults(handler=supervise_verb)


def supervise_verb(arguments: argparse.Namespace) -> int:
    """Supervise the run, in a loop or once."""
    from sarhpc.launch.profile import chosen_executor
    from sarhpc.launch.supervise import Target, supervise
    from sarhpc.stages.run_config import load_run_config

    run = own_run(arguments.run)
    if arguments.in_job is not None:
        return _repair(run, arguments.in_job)
    executor, profile = chosen_executor(
        run, load_run_config(run), arguments.profile, arguments.executor
    )
    if arguments.print_scrontab:
        from sarhpc.launch.scrontab import scrontab_entry

        print(scrontab_entry(run, profile, arguments.profile), end="")
        return 0
    target = Target(arguments.profile, arguments.executor, until=arguments.until)
    every_s = arguments.every or EVERY_S.get(executor, 10.0)
    try:
        return supervise(run, target, None if arguments.once else every_s, _print)
    except RunInUseError as error:
        if not arguments.once:
            raise
        # The next entry of cron came before this one had ended.
        _print(str(error))
        return 0


def _repair(run: RunDir, stage: str) -> int:
    """One pass from the script of a job that found its upstream stage unsealed; 0 always."""
    from hpc.cluster.allocation import current_allocation
    from sarhpc.launch.supervise import Target, supervise
    from sarhpc.stages.registry import stage_named
    from sarhpc.stages.run_config import load_run_config

    if all(run.ledger(need).sealed for need in stage_named(load_run_config(run), stage).needs):
        return 0
    here = current_allocation()
    mine = f"{here.array_id}_{here.array_index}" if here.array_id is not None else here.job_id
    try:
        supervise(run, Target(leaving=(str(mine),), only_lost=True), None, _print)
    except HpcError as error:
        _print(f"not submitted again: {error}")
    return 0


def _print(line: str) -> None:
    print(line, flush=True)
