"""What each verb does, behind the parser of `sarhpc.cli`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from hpc.config import differences, fingerprint, load, loads, to_dict, to_yaml
from hpc.errors import ConfigError, FingerprintMismatchError
from hpc.job.pipeline import Stage, require_upstream, unsealed_stages
from hpc.publish import publish_text
from hpc.store.rundir import RunDir, create_run, open_run
from sarhpc import __version__
from sarhpc.stages.config import RunConfig
from sarhpc.stages.registry import line_of_stages, stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.settings import require_places, require_settings


def init_verb(arguments: argparse.Namespace) -> int:
    """Create the run directory and freeze its configuration."""
    config = _given_config(arguments)
    if arguments.cfg:
        print(to_yaml(config), end="")
        return 0
    run = _create(arguments, config)
    print(f"run {run.root} is frozen with configuration {run.info['fingerprint']}")
    print(f"next: sarhpc run {arguments.run}")
    return 0


def _given_config(arguments: argparse.Namespace) -> RunConfig:
    """The configuration asked for: on a standing run without a file, its own and the overrides."""
    root = Path(arguments.run)
    if arguments.config is None and (root / "run.json").exists():
        run = open_run(root)
        load_run_config(run)
        text = run.config_file.read_text()
        return loads(RunConfig, text, arguments.overrides, source=str(run.config_file))
    yaml = Path(arguments.config) if arguments.config else None
    return load(RunConfig, yaml, arguments.overrides)


def _create(arguments: argparse.Namespace, config: RunConfig) -> RunDir:
    root = Path(arguments.run)
    if (root / "run.json").exists():
        run = open_run(root)
        standing = load_run_config(run)
        changes = differences(standing, config)
        if changes:
            raise FingerprintMismatchError(
                f"{root} is frozen and you ask for other values: {'; '.join(changes[:5])}; "
                "name another run directory, or leave the words out"
            )
        # What is left to differ changes nothing of what is made (workers, logging).
        for line in differences(standing, config, transient=True):
            print(f"from now on {line}")
            publish_text(run.config_file, to_yaml(config))
        return run
    facts = {
        "version": __version__,
        "platform": platform.platform(),
        "config": to_dict(config, transient=False),
    }
    return create_run(root, to_yaml(config), fingerprint(config), arguments.overrides, facts)


def catalog_verb(arguments: argparse.Namespace) -> int:
    """Build a STAC catalogue from a folder of real files."""
    from sarhpc.cli.catalog import build_catalogue

    declarations = Path(arguments.declare) if arguments.declare else None
    return build_catalogue(Path(arguments.folder), Path(arguments.out), declarations)


def stage_verb(arguments: argparse.Namespace) -> int:
    """Bring one stage forward."""
    run = open_run(Path(arguments.run))
    stage = stage_named(load_run_config(run), arguments.verb)
    if run.ledger(stage.name).sealed:
        print(f"{stage.name}: sealed, nothing to do")
        return 0
    return _bring_forward(run, [stage], arguments, alone=True)


def run_verb(arguments: argparse.Namespace) -> int:
    """Bring every stage forward, in order."""
    config = _given_config(arguments)
    if arguments.cfg:
        print(to_yaml(config), end="")
        return 0
    run = _create(arguments, config)
    return _run_line(run, arguments, _between(run, arguments.first, arguments.last))


def resume_verb(arguments: argparse.Namespace) -> int:
    """Go on with what is left; an operator's STOP is lifted."""
    run = open_run(Path(arguments.run))
    if not (arguments.dry_run or arguments.print_sbatch):
        run.stop_file.unlink(missing_ok=True)
    return _run_line(run, arguments, line_of_stages(load_run_config(run)))


def _between(run: RunDir, first: str | None, last: str | None) -> list[Stage]:
    stages = line_of_stages(load_run_config(run))
    names = [stage.name for stage in stages]
    for name in (first, last):
        if name is not None and name not in names:
            raise ConfigError(f"no stage {name!r} in this run; it has {', '.join(names)}")
    begin = names.index(first) if first else 0
    end = names.index(last) + 1 if last else len(names)
    if begin >= end:
        raise ConfigError(f"--from {first} comes after --until {last}; order: {', '.join(names)}")
    return stages[begin:end]


def _run_line(run: RunDir, arguments: argparse.Namespace, stages: Sequence[Stage]) -> int:
    todo = list(unsealed_stages(run, stages))
    if not todo:
        print("nothing to do: every stage is sealed")
        return 0
    return _bring_forward(run, todo, arguments, alone=False)


def _bring_forward(
    run: RunDir, stages: Sequence[Stage], arguments: argparse.Namespace, *, alone: bool
) -> int:
    """Show what would be done, or have it done: by jobs on Slurm, or by a driver on this machine.

    Args:
        run: the run.
        stages: unsealed stages, in order.
        arguments: of the verb.
        alone: whether they are one stage that needs no driver.
    """
    from sarhpc.launch.local import launch_line, launch_stage
    from sarhpc.launch.profile import chosen_executor

    config = load_run_config(run)
    executor, profile = chosen_executor(run, config, arguments.profile, arguments.executor)

    def ranks(stage: str) -> int:
        """Processes of a training."""
        return config.cluster.ranks if profile is None else profile.resources_of(stage).tasks

    if arguments.dry_run:
        from sarhpc.launch.estimate import show_plan_and_cost

        show_plan_and_cost(run, stages, profile)
    else:
        require_places(run, config)
    require_settings(config, [stage.name for stage in stages], ranks)
    if arguments.dry_run:
        return 0
    if profile is not None and arguments.print_sbatch:
        from sarhpc.launch.slurm import print_scripts

        print_scripts(run, stages, profile, force=arguments.force)
        return 0
    if run.stop_file.exists():
        raise ConfigError(
            f"{run.root} was stopped by an operator; `sarhpc resume {run.root}` lifts that"
        )
    if profile is not None:
        from sarhpc.launch.slurm import submit_stages, wait_for_jobs

        submit_stages(run, stages, profile, force=arguments.force)
        return wait_for_jobs(run, stages) if arguments.wait else 0
    if arguments.print_sbatch:
        raise ConfigError("--print-sbatch needs a Slurm profile: --profile NAME")
    require_upstream(run, stages[0])
    if alone:
        return launch_stage(run, stages[0], executor, wait=arguments.wait, force=arguments.force)
    return launch_line(run, stages, executor, wait=arguments.wait, force=arguments.force)


def stop_verb(arguments: argparse.Namespace) -> int:
    """Ask the run to save and stop; sticky until `resume`."""
    run = open_run(Path(arguments.run))
    descriptor = os.open(run.stop_file, os.O_CREAT | os.O_WRONLY, 0o600)
    os.close(descriptor)
    print(f"asked to stop; it saves first. Go on later with: sarhpc resume {arguments.run}")
    return 0


def cancel_verb(arguments: argparse.Namespace) -> int:
    """Stop, sticky until `resume`; waiting jobs leave the queue, running ones save first."""
    from sarhpc.launch.slurm import cancel_jobs

    return cancel_jobs(open_run(Path(arguments.run)), now=arguments.now)


def enlist_verb(arguments: argparse.Namespace) -> int:
    """Print what the script of a Slurm job sources before its tasks start."""
    from sarhpc.launch.sbatch import enlist

    run = open_run(Path(arguments.run))
    lines = enlist(run, arguments.stage, requeue=arguments.requeue, grace_s=arguments.grace_s)
    print(lines, end="")
    return 0


def work_verb(arguments: argparse.Namespace) -> int:
    """Do the part of one task of a Slurm job."""
    from sarhpc.launch.sbatch import work_here

    return work_here(open_run(Path(arguments.run)), arguments.stage)


def verify_verb(arguments: argparse.Namespace) -> int:
    """Check every published artefact against its record; exit 4 if any disagrees."""
    from sarhpc.cli.verification import verify_run

    run = open_run(Path(arguments.run))
    checked, problems = verify_run(run, line_of_stages(load_run_config(run)), arguments.deep)
    for problem in problems:
        print(problem)
    print(f"{checked} artefacts checked, {len(problems)} wrong")
    if problems:
        print(
            "to make them again move their records away, in a sealed stage its manifest.jsonl, "
            f"then: sarhpc resume {arguments.run}",
            file=sys.stderr,
        )
    return 4 if problems else 0
