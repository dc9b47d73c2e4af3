"""The verbs of the scripts in slurm/, called inside a job; `sarhpc --help` does not list them."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpc.store.rundir import open_run
from sarhpc.cli.own_run import own_run
from sarhpc.cli.verbs import Verbs


def add_verbs_of_jobs(verbs: Verbs) -> None:
    """Add `attach-job`, `enlist` by its name of before, and `work`."""
    attach = verbs.add_parser(
        "attach-job",
        aliases=["enlist"],
        description="inside a Slurm script: make the job a submission of the run, and print the "
        "shell lines to evaluate before its tasks start",
    )
    attach.add_argument("run", help="run directory")
    attach.add_argument("stage", help="stage of the job")
    attach.add_argument("--requeue", choices=["scontrol", "none"], default="scontrol")
    attach.add_argument("--grace-s", type=float, default=300.0)
    attach.set_defaults(handler=attach_job_verb)
    work = verbs.add_parser("work", description="inside a Slurm script: the part of one task")
    work.add_argument("run", help="run directory")
    work.add_argument("stage", help="stage of the job")
    work.set_defaults(handler=work_verb)


def attach_job_verb(arguments: argparse.Namespace) -> int:
    """Print what the script of a Slurm job sources before its tasks start."""
    from sarhpc.launch.sbatch import attach_job

    run = own_run(arguments.run)
    lines = attach_job(run, arguments.stage, requeue=arguments.requeue, grace_s=arguments.grace_s)
    print(lines, end="")
    return 0


def work_verb(arguments: argparse.Namespace) -> int:
    """Do the part of one task of a Slurm job."""
    from sarhpc.launch.sbatch import run_task

    return run_task(open_run(Path(arguments.run)), arguments.stage)
