"""The verb `init`, and the configuration that `init` and `run` are given."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpc.config import differences, fingerprint, load, loads, to_yaml
from hpc.errors import ConfigError, FingerprintMismatchError
from hpc.shell import quoted
from hpc.store.rundir import PreviewedRun, RunDir, open_run, preview_run
from sarhpc.cli.frozen_text import frozen_text
from sarhpc.cli.own_run import acted_on
from sarhpc.cli.verbs import Verbs, add_verb
from sarhpc.stages.config import RunConfig
from sarhpc.stages.former_defaults import with_defaults_of
from sarhpc.stages.run_config import facts_of, load_run_config
from sarhpc.stages.templates import template, template_names


def add_init(verbs: Verbs) -> None:
    """Add `init`."""
    init = add_verb(verbs, "init", "create a run directory with a draft of its configuration")
    init.add_argument("run", help="run directory, new or the same again")
    add_config_arguments(init)
    init.set_defaults(handler=init_verb)


def add_config_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the arguments that configure a run."""
    source = verb.add_mutually_exclusive_group()
    source.add_argument("--config", metavar="FILE", help="YAML configuration")
    source.add_argument("--template", metavar="NAME", dest="config", type=_template, help="a "
                        f"configuration that ships: {', '.join(template_names())}")  # fmt: skip
    verb.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, a.b=c")
    verb.add_argument("--cfg", action="store_true", help="print the configuration and stop")


def _template(name: str) -> str:
    try:
        return str(template(name))
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def init_verb(arguments: argparse.Namespace) -> int:
    """Create the run directory, or change the configuration of one that has not begun."""
    config = given_config(arguments)
    if arguments.cfg:
        print(to_yaml(config), end="")
        return 0
    run = acted_on(drafted_run(arguments, config))
    if run.begun:
        print(f"run {run.root} is frozen with configuration {run.info['fingerprint']}")
    else:
        print(f"run {run.root} has a draft of its configuration, which its first job freezes")
        print(f"change it: sarhpc init {quoted(arguments.run)} key=value")
    print(f"next: sarhpc run {quoted(arguments.run)}")
    return 0


def given_config(arguments: argparse.Namespace) -> RunConfig:
    """The requested configuration: of an existing run its own unless a file is named."""
    root = Path(arguments.run)
    if arguments.config is None and (root / "run.json").exists():
        run = open_run(root)
        existing = load_run_config(run)
        if not arguments.overrides:
            return existing
        text = run.config_text
        return loads(
            RunConfig, text, arguments.overrides, source=str(run.config_file), origin="frozen"
        )
    yaml = Path(arguments.config) if arguments.config else None
    return load(RunConfig, yaml, arguments.overrides)


def previewed_run(arguments: argparse.Namespace, config: RunConfig) -> RunDir:
    """The run with that configuration: the existing one, or one that `freeze` makes or changes.

    Raises:
        FingerprintMismatchError: the existing one has begun with other values.
    """
    root = Path(arguments.run)
    if (root / "run.json").exists():
        run = open_run(root)
        return _changed_run(run, config, arguments)
    text, facts = frozen_text(config, arguments), facts_of(config)
    return preview_run(root, text, fingerprint(config), arguments.overrides, facts)


def drafted_run(arguments: argparse.Namespace, config: RunConfig) -> RunDir:
    """As `previewed_run`, of a configuration whose values are right as far as one sees now.

    Raises:
        ConfigError: names each that is not; those of an existing run are not asked again.
    """
    run = previewed_run(arguments, config)
    if isinstance(run, PreviewedRun):
        require_changes(run)
    return run


def require_changes(run: PreviewedRun) -> None:
    """Raise ConfigError if a value is wrong that the run on disk does not have already."""
    from sarhpc.stages.settings import require_right_values

    there = RunDir(run.root)
    require_right_values(load_run_config(run), load_run_config(there) if there.frozen else None)


def _changed_run(run: RunDir, config: RunConfig, arguments: argparse.Namespace) -> RunDir:
    """The existing run with other values: any of a draft, else those that decide nothing."""
    existing = load_run_config(run)
    if run.begun:
        config = with_defaults_of(existing, config)
    changes = differences(existing, config)
    if changes and run.begun:
        raise FingerprintMismatchError(
            f"{run.root} is frozen with other values: {'; '.join(changes[:5])}; "
            "name another run directory, or leave the overrides out"
        )
    # What else may differ does not change what is made (workers, logging).
    changed = differences(existing, config, transient=True)
    if not changed:
        return run
    text = frozen_text(config, arguments, run.config_text, changes)
    if not changes:
        return PreviewedRun(run.root, text, run.info)
    facts = {**run.info, **facts_of(config), "fingerprint": fingerprint(config)}
    words = run.root / "overrides.txt"
    before = words.read_text().splitlines() if words.exists() and not arguments.config else []
    return PreviewedRun(run.root, text, facts, (*before, *arguments.overrides))
