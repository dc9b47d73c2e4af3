"""The verbs that carry out stages: one for each stage, `run` and `resume`."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.config import to_yaml
from hpc.errors import ConfigError
from hpc.job.pipeline import Stage, require_upstream, unsealed_stages
from hpc.job.signatures import require_own_checkpoints
from hpc.store.ownership import open_own_run, require_own_run
from hpc.store.run_paths import require_plain_path
from hpc.store.rundir import PreviewedRun, RunDir, open_run
from sarhpc.cli.configuration import (
    add_config_arguments,
    given_config,
    previewed_run,
    require_changes,
)
from sarhpc.cli.evaluation import add_evaluate_arguments, evaluate_here, evaluates_here
from sarhpc.cli.own_run import acted_on, changes_of
from sarhpc.cli.submission_json import answering
from sarhpc.cli.verbs import Verbs, add_json, add_verb, print_json
from sarhpc.stages.evaluate import EVALUATE
from sarhpc.stages.inputs.contracts import models_without_contract
from sarhpc.stages.registry import STAGES, line_of_stages, stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.settings import (
    require_inputs,
    require_installed,
    require_present,
    require_settings,
)
from sarhpc.stages.spec import pass_all

if TYPE_CHECKING:
    from hpc.cluster.profile import Profile


def add_stages(verbs: Verbs) -> None:
    """Add a verb for each stage."""
    for spec in STAGES:
        stage = add_verb(verbs, spec.name, spec.help)
        also = ", or the set REAL" if spec is EVALUATE else ""
        stage.add_argument("run", help=f"run directory{also}")
        _add_submission_arguments(stage)
        if spec is EVALUATE:
            add_evaluate_arguments(stage)
        else:
            _add_json(stage)
        stage.set_defaults(handler=stage_verb if spec is EVALUATE else answering(stage_verb))


def add_run_and_resume(verbs: Verbs) -> None:
    """Add `run` and `resume`."""
    run = add_verb(verbs, "run", "carry out every stage, in order")
    run.add_argument("run", help="run directory, created if new")
    add_config_arguments(run)
    _add_submission_arguments(run)
    _add_json(run)
    run.add_argument("--from", dest="first", metavar="STAGE", help="start at this stage")
    run.add_argument("--until", dest="last", metavar="STAGE", help="end with this stage")
    run.set_defaults(handler=answering(run_verb))
    resume = add_verb(verbs, "resume", "continue a run with its unsealed stages")
    resume.add_argument("run", help="run directory")
    _add_submission_arguments(resume)
    _add_json(resume)
    resume.set_defaults(handler=answering(resume_verb))


def _add_submission_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--profile", help="cluster: a name in slurm/profiles, or a YAML file")
    verb.add_argument("--executor", choices=["slurm", "local", "debug"],
                      help="how work reaches a machine (default: that of the profile)")  # fmt: skip
    verb.add_argument(
        "--wait",
        action="store_true",
        help="show progress until the end; Ctrl-C leaves it running",
    )
    verb.add_argument("--dry-run", action="store_true", help="show plan and cost, and stop")
    verb.add_argument("--print-sbatch", action="store_true", help="print the scripts, submit none")
    verb.add_argument("--force", action="store_true", help="try again after a crash loop")
    verb.add_argument("--trust-checkpoint", action="store_true",
                      help="take checkpoints that no job of the run signed")  # fmt: skip


def submission_options(**chosen: object) -> argparse.Namespace:
    """The arguments of a submission as without flags, but for those `chosen`."""
    parser = argparse.ArgumentParser(add_help=False)
    _add_submission_arguments(parser)
    _add_json(parser)
    return argparse.Namespace(**(vars(parser.parse_args([])) | chosen))


def _add_json(verb: argparse.ArgumentParser) -> None:
    add_json(verb, "machine-readable: the jobs; with --dry-run plan and cost")


def stage_verb(arguments: argparse.Namespace) -> int:
    """Carry out one stage."""
    if arguments.verb == EVALUATE.name and evaluates_here(arguments):
        return evaluate_here(arguments)
    run = open_run(Path(arguments.run))
    stage = stage_named(load_run_config(run), arguments.verb)
    _require_own(run, arguments)
    if run.ledger(stage.name).sealed:
        print(f"{stage.name}: sealed, nothing to do")
        return 0
    return _carry_out(run, [stage], arguments, alone=True)


def run_verb(arguments: argparse.Namespace) -> int:
    """Carry out every stage, in order."""
    config = given_config(arguments)
    if arguments.cfg:
        print(to_yaml(config), end="")
        return 0
    run = previewed_run(arguments, config)
    return _run_line(run, arguments, _between(run, arguments.first, arguments.last))


def resume_verb(arguments: argparse.Namespace) -> int:
    """Continue with the unsealed stages; an operator's STOP is removed."""
    from sarhpc.launch.stopping import lift_stop

    run = open_run(Path(arguments.run))
    if not _only_looks(arguments):
        lift_stop(open_own_run(run.root))
    return _run_line(run, arguments, line_of_stages(load_run_config(run)))


def _only_looks(arguments: argparse.Namespace) -> bool:
    return bool(arguments.dry_run or arguments.print_sbatch)


def _require_own(run: RunDir, arguments: argparse.Namespace) -> None:
    """Raise NotTrustedError if a verb that acts was given another user's run."""
    if run.frozen and not _only_looks(arguments):
        require_own_run(run)


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
    _require_own(run, arguments)
    todo = list(unsealed_stages(run, stages))
    if not todo:
        rest = unsealed_stages(run, line_of_stages(load_run_config(run)))
        print(
            f"nothing to do: {'the selected stages are' if any(rest) else 'every stage is'} sealed"
        )
        if arguments.wait:
            from sarhpc.launch.outcome import outcome_lines

            print("\n".join(outcome_lines(run, failed=False)))
        return 0
    return _carry_out(run, todo, arguments, alone=False)


def _up_to(run: RunDir, last: str) -> list[str]:
    """The unsealed stages up to `last`, whose settings decide what it costs."""
    line = line_of_stages(load_run_config(run))
    end = [stage.name for stage in line].index(last) + 1
    return [stage.name for stage in unsealed_stages(run, line[:end])]


def _carry_out(
    run: RunDir, stages: Sequence[Stage], arguments: argparse.Namespace, *, alone: bool
) -> int:
    """Show what would be done, or submit it: as jobs on Slurm, or to a driver on this machine.

    Args:
        run: the run.
        stages: unsealed stages, in order.
        arguments: of the verb.
        alone: whether they are one stage that needs no driver.
    """
    from sarhpc.launch.estimate import require_room_for
    from sarhpc.launch.profile import chosen_executor, number_of_ranks

    config, names = load_run_config(run), [stage.name for stage in stages]
    executor, profile = chosen_executor(run, config, arguments.profile, arguments.executor)
    ranks = functools.partial(number_of_ranks, config, profile)
    if profile is None or profile.container is None:  # an image has packages of its own
        require_installed(config, names)
    if _only_looks(arguments):
        for line in changes_of(run):
            print(f"would be changed for this run: {line}", file=sys.stderr)
    if arguments.dry_run:

        def show() -> None:
            """Plans are made by settings that hold."""
            _require_values(run, _up_to(run, stages[-1].name), ranks)
            _show_plan_and_cost(run, stages, profile, as_json=arguments.json)

        pass_all(
            show,
            lambda: require_inputs(run, config, names),
            lambda: require_present(run, config, names),
        )
        return 0
    pass_all(
        lambda: require_inputs(run, config, names),
        lambda: _require_values(run, names, ranks),
        lambda: require_present(run, config, names),
    )
    for line in models_without_contract(run, config, names):
        print(f"warning: {line}", file=sys.stderr)
    require_room_for(run, stages)
    if arguments.print_sbatch:
        from sarhpc.launch.slurm import print_scripts

        if profile is None:
            raise ConfigError("--print-sbatch needs a Slurm profile: --profile NAME")
        print_scripts(run, stages, profile, force=arguments.force)
        return 0
    return _start(run, stages, arguments, (executor, profile), alone=alone)


def _require_values(run: RunDir, stages: Sequence[str], ranks: Callable[[str], int]) -> None:
    """Raise ConfigError unless `stages` accept their settings, and the others what was changed."""
    pass_all(
        lambda: require_settings(load_run_config(run), stages, ranks),
        lambda: require_changes(run) if isinstance(run, PreviewedRun) else None,
    )


def _start(
    run: RunDir,
    stages: Sequence[Stage],
    arguments: argparse.Namespace,
    where: tuple[str, Profile | None],
    *,
    alone: bool,
) -> int:
    """Submit what was checked; arguments as of `_carry_out`, `where` is executor and profile."""
    from sarhpc.launch.local import launch_line, launch_stage
    from sarhpc.launch.started import no_note

    executor, profile = where
    note = getattr(arguments, "note", no_note)
    if run.stop_file.exists():
        raise ConfigError(
            f"{run.root} was stopped by an operator; `sarhpc resume {run.quoted}` removes the stop"
        )
    if profile is not None:
        require_plain_path(run.root)
    if not run.begun:
        _require_submittable(run, stages, profile)
    run = acted_on(run)
    require_own_checkpoints(run.root, trust=arguments.trust_checkpoint)
    if profile is not None:
        from sarhpc.launch.moved_jobs import cancel_moved_jobs
        from sarhpc.launch.slurm import submit_stages
        from sarhpc.launch.waiting import wait_for_jobs

        cancel_moved_jobs(run)
        submit_stages(run, stages, profile, force=arguments.force, note=note)
        return wait_for_jobs(run, stages) if arguments.wait else 0
    require_upstream(run, stages[0])
    wait, force = arguments.wait, arguments.force
    if alone:
        return launch_stage(run, stages[0], executor, wait=wait, force=force, note=note)
    return launch_line(run, stages, executor, wait=wait, force=force, note=note)


def _show_plan_and_cost(
    run: RunDir, stages: Sequence[Stage], profile: Profile | None, *, as_json: bool
) -> None:
    from sarhpc.launch.estimate import plan_and_cost

    if as_json:
        print_json(plan_and_cost(run, stages, profile, lambda line: None))
    else:
        plan_and_cost(run, stages, profile)


def _require_submittable(run: RunDir, stages: Sequence[Stage], profile: Profile | None) -> None:
    """Raise what would refuse a new run, before it is made."""
    if profile is None:
        require_upstream(run, stages[0])
        return
    from sarhpc.launch.submission_plan import plan_submission

    plan_submission(run, stages, profile, {})
