"""`--json` of the verbs that submit: one document on standard output, all messages on the other."""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from hpc.errors import ConfigError, HpcError, exit_code_of
from hpc.store.rundir import RunDir, open_run
from sarhpc.cli.verbs import print_json
from sarhpc.launch.started import StartedJob
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config

Verb = Callable[[argparse.Namespace], int]


def answering(verb: Verb) -> Verb:
    """The verb, which with `--json` prints what it has started and how that ended.

    A refusal prints nothing on standard output: its exit code and message are those without
    `--json`. So is the exit code of work that was waited for.
    """

    @functools.wraps(verb)
    def carried_out(arguments: argparse.Namespace) -> int:
        """Carry out the verb."""
        if not arguments.json or arguments.dry_run or getattr(arguments, "cfg", False):
            return verb(arguments)
        if arguments.print_sbatch:
            raise ConfigError("--print-sbatch prints scripts: leave --json out")
        jobs: list[StartedJob] = []
        arguments.note = jobs.append
        error = None
        try:
            with _messages_apart():
                code = verb(arguments)
        except HpcError as raised:
            if not jobs:
                raise
            code, error = exit_code_of(raised), raised
        print_json(_document(open_run(Path(arguments.run)), jobs, code, arguments, error))
        if error is not None:
            raise error
        return code

    return carried_out


@contextlib.contextmanager
def _messages_apart() -> Iterator[None]:
    """Standard output is that of the document alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _document(
    run: RunDir,
    jobs: list[StartedJob],
    code: int,
    arguments: argparse.Namespace,
    error: HpcError | None,
) -> dict[str, object]:
    from sarhpc.launch.outcome import outcome
    from sarhpc.launch.waiting import DETACHED

    names = [stage.name for stage in line_of_stages(load_run_config(run))]
    sealed = [name for name in names if run.ledger(name).sealed]
    waited = arguments.wait or getattr(arguments, "executor", None) == "debug"
    return {
        "run": str(run.root),
        "jobs": [job.to_json() for job in jobs],
        "sealed": sealed,
        "left": [name for name in names if name not in sealed],
        "waited": waited and code != DETACHED,
        "exit_code": code,
        "error": None if error is None else str(error),
        "outcome": outcome(run, failed=code != 0) if waited else None,
    }
