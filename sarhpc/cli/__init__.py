"""The verbs. Nothing heavy is imported here: `sarhpc --help` answers in 0.3 s on a login node."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

PLACES = {
    "grid": "grid",
    "decoder": "decoder",
    **dict.fromkeys(("status", "logs", "report", "clean", "fetch"), "observing"),
    **dict.fromkeys(("doctor", "nodes"), "operations"),
    "inspect": "inspection",
}
"""Verb -> module of `sarhpc.cli` that carries it out; the others are in `commands`."""

EPILOG = """\
A run is one directory and one frozen configuration; each verb brings one stage of it forward,
`run` the whole line, and any of them may be repeated at any time.

  sarhpc run runs/demo --config configs/demo.yaml --wait
  sarhpc status runs/demo
  sarhpc resume runs/demo

Exit codes: 0 done, 1 operational, 2 usage or configuration, 3 numerical, 4 verification failed,
5 incomplete, 75 transient (try again).
"""


def build_parser() -> argparse.ArgumentParser:
    """Parser of every verb and flag."""
    parser = argparse.ArgumentParser(
        prog="sarhpc",
        description="From an airborne SAR archive to a text-to-SAR generator and its corpora.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    from sarhpc.stages.registry import STAGES

    _add_init(verbs)
    _add_catalog(verbs)
    for spec in STAGES:
        stage = verbs.add_parser(spec.name, help=spec.help, description=spec.help)
        stage.add_argument("run", help="run directory")
        _add_submission(stage)
    _add_run(verbs)
    _add_observing(verbs)
    _add_grid(verbs)
    _add_decoder(verbs)
    _add_inside_jobs(verbs)
    _add_operations(verbs)
    return parser


def _add_init(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    init = verbs.add_parser("init", help="create a run directory and freeze its configuration")
    init.add_argument("run", help="run directory, new or the same again")
    _add_config(init)


def _add_config(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--config", help="YAML configuration (see configs/)")
    verb.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, a.b=c")
    verb.add_argument("--cfg", action="store_true", help="print the configuration and stop")


def _add_catalog(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    catalog = verbs.add_parser("catalog", help="build a STAC catalogue from a folder of SAR files")
    catalog.add_argument("folder", help="folder of GeoTIFF, COG or SICD files")
    catalog.add_argument("--out", required=True, help="folder the catalogue is written to")
    catalog.add_argument("--declare", help="YAML of facts the files do not carry (default: "
                         "sarhpc.yaml in the folder)")  # fmt: skip


def _add_submission(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--profile", help="cluster: a name in slurm/profiles, or a YAML file")
    verb.add_argument("--executor", choices=["slurm", "local", "debug"],
                      help="how work reaches a machine (default: as the profile says)")  # fmt: skip
    verb.add_argument("--wait", action="store_true", help="wait for the end and show the log")
    verb.add_argument("--dry-run", action="store_true", help="show plan and cost, and stop")
    verb.add_argument("--print-sbatch", action="store_true", help="print the scripts, submit none")
    verb.add_argument("--force", action="store_true", help="try again after a crash loop")


def _add_run(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = verbs.add_parser("run", help="bring every stage forward, in order")
    run.add_argument("run", help="run directory, created if new")
    _add_config(run)
    _add_submission(run)
    run.add_argument("--from", dest="first", metavar="STAGE", help="start at this stage")
    run.add_argument("--until", dest="last", metavar="STAGE", help="end with this stage")
    resume = verbs.add_parser("resume", help="go on with what is left of a run")
    resume.add_argument("run")
    _add_submission(resume)


def _add_observing(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    status = verbs.add_parser("status", help="where a run stands: disk, queue, accounting")
    status.add_argument("run")
    status.add_argument("--json", action="store_true", help="machine-readable")
    status.add_argument("--watch", action="store_true", help="again and again until complete")
    status.add_argument("--every", type=float, metavar="S", help="seconds between looks (default "
                        "5, with jobs on a cluster 30)")  # fmt: skip
    logs = verbs.add_parser("logs", help="show the newest logs of a run")
    logs.add_argument("run")
    logs.add_argument("--stage", help="only this stage")
    logs.add_argument("--tail", type=int, default=40, help="lines of each log (default 40)")
    logs.add_argument("--failed", action="store_true", help="what failed, why, and its last words")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as they grow; Ctrl-C ends")
    report = verbs.add_parser("report", help="GPU-hours by stage and outcome, useful and lost")
    report.add_argument("run")
    report.add_argument("--json", action="store_true", help="machine-readable")
    clean = verbs.add_parser("clean", help="list what nothing needs any more; --yes removes it")
    clean.add_argument("run")
    clean.add_argument("--yes", action="store_true", help="remove it")
    fetch = verbs.add_parser("fetch", help="bring pinned models to the shared cache, for jobs "
                             "without network")  # fmt: skip
    fetch.add_argument("models", nargs="*", metavar="NAME", help="sd15, sdxl, blip; none lists")
    fetch.add_argument("--to", metavar="FOLDER", help="the cache (default $SARHPC_MODELS, else "
                       "models in $HF_HOME)")  # fmt: skip
    fetch.add_argument("--from", dest="source", metavar="FOLDER", help="take the files from here")
    fetch.add_argument("--deep", action="store_true", help="compare every byte of what is there")
    inspect = verbs.add_parser("inspect", help="a page on what shards hold: tiles, captions, "
                               "distributions, places, oddities")  # fmt: skip
    inspect.add_argument("shards", help="folder of shards, one shard, or a run directory")
    inspect.add_argument("--out", default="inspect.html", metavar="PAGE",
                         help="the page (default inspect.html here)")  # fmt: skip
    inspect.add_argument("--tiles", type=int, default=256, metavar="N",
                         help="tiles of each set that are measured (default 256)")  # fmt: skip
    stop = verbs.add_parser("stop", help="save and stop; sticky until `resume`")
    stop.add_argument("run")
    cancel = verbs.add_parser("cancel", help="stop, and take the jobs out of the queue")
    cancel.add_argument("run")
    cancel.add_argument("--now", action="store_true", help="let running jobs not even save")
    verify = verbs.add_parser("verify", help="check every published artefact against its record")
    verify.add_argument("run")
    verify.add_argument("--deep", action="store_true", help="read every byte, not only sizes")


def _add_grid(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    grid = verbs.add_parser("grid", help="a picture of what a model makes of prompts and seeds")
    grid.add_argument("model", help="diffusers folder, such as RUN/export/model, or embedded:NAME")
    grid.add_argument("--prompt", action="append", required=True, help="a row; may be repeated")
    grid.add_argument("--seed", action="append", type=int, help="a column (default 0 1 2 3)")
    grid.add_argument("--between", type=int, default=0, metavar="N",
                      help="N more columns on the way from each seed to the next")  # fmt: skip
    grid.add_argument("--steps", type=int, default=25, help="denoising steps (default 25)")
    grid.add_argument("--guidance", type=float, default=7.5, help="guidance scale (default 7.5)")
    grid.add_argument("--out", required=True, help="PNG; a JSON of the same name tells how it was "
                      "made, and how close the prompts' embeddings are")  # fmt: skip


def _add_decoder(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    decoder = verbs.add_parser("decoder", help="tune a model's decoder for speckle, with a "
                               "report before and after")  # fmt: skip
    decoder.add_argument("base", help="diffusers folder, or embedded:NAME; its encoder stays")
    decoder.add_argument("--tiles", required=True, help="folder of shards with train and val or "
                         "test, such as RUN/data/samples")  # fmt: skip
    decoder.add_argument("--out", required=True, help="folder for model, report and state")
    decoder.add_argument("--config", help="YAML of the tuning")
    decoder.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, a.b=c")


def _add_operations(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    doctor = verbs.add_parser("doctor", help="what this machine and its cluster offer and lack")
    doctor.add_argument("run", nargs="?", help="run directory, to look at the place it stands in")
    doctor.add_argument("--profile", help="ask Slurm whether it takes the jobs of this profile")
    doctor.add_argument("--nodes", type=int, metavar="N", help="with --profile: all-reduce between "
                        "N nodes, as a short job")  # fmt: skip
    doctor.add_argument("--quick", action="store_true", help="leave out what takes seconds: "
                        "imports, GPUs, all-reduce, offline proof")  # fmt: skip
    doctor.add_argument("--json", action="store_true", help="machine-readable")
    doctor.add_argument("--write-profile", nargs="?", const="", metavar="FILE",
                        help="draft a profile (default slurm/profiles/CLUSTER.yaml)")  # fmt: skip
    nodes = verbs.add_parser("nodes", help="nodes that jobs stay away from, and why")
    nodes.add_argument("--forgive", action="append", metavar="NODE", help="take it off the list")
    nodes.add_argument("--mark", action="append", metavar="NODE", help="put it on the list")
    nodes.add_argument("--reason", default="marked by hand", help="with --mark: why")
    nodes.add_argument("--hours", type=float, default=72.0, help="with --mark: how long (72)")
    nodes.add_argument("--cluster", help="Slurm's ClusterName (default: that of this machine)")
    nodes.add_argument("--json", action="store_true", help="machine-readable")


def _add_inside_jobs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Verbs of the scripts in slurm/; without a help text, so that they are not in the list."""
    enlist = verbs.add_parser("enlist", description="inside a Slurm script: print what to source")
    enlist.add_argument("run")
    enlist.add_argument("stage")
    enlist.add_argument("--requeue", choices=["scontrol", "none"], default="scontrol")
    enlist.add_argument("--grace-s", type=float, default=300.0)
    work = verbs.add_parser("work", description="inside a Slurm script: the part of one task")
    work.add_argument("run")
    work.add_argument("stage")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    # Jobs, which inherit this, load pickles and code from the run: only its owner may write there.
    os.umask(os.umask(0o077) | 0o022)
    parser = build_parser()
    # Overrides may follow flags: `run DIR --config C a=b`; argparse alone loses them there.
    arguments, rest = parser.parse_known_args(argv)
    strange = [word for word in rest if word.startswith("-") or "=" not in word]
    if strange:
        parser.error(f"unknown words: {' '.join(strange)}")
    if rest and hasattr(arguments, "overrides"):
        arguments.overrides += rest
    elif rest:
        parser.error(f"{arguments.verb} takes no overrides; give them to `init` or `run`")
    if arguments.version:
        from sarhpc import __version__

        print(__version__)
        return 0
    if arguments.verb is None:
        parser.print_help()
        return 2
    return _carry_out(arguments)


def _carry_out(arguments: argparse.Namespace) -> int:
    from hpc.errors import HpcError, exit_code_of
    from sarhpc.stages.registry import STAGES

    verb = "stage" if arguments.verb in {spec.name for spec in STAGES} else arguments.verb
    module = importlib.import_module(f"sarhpc.cli.{PLACES.get(verb, 'commands')}")
    try:
        return int(getattr(module, f"{verb}_verb")(arguments))
    except HpcError as error:
        print(f"sarhpc {arguments.verb}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # `sarhpc logs RUN | head` has seen enough; keep Python from flushing into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        hint = "look at its permissions, its disk and its spelling, then repeat the command"
        print(f"sarhpc {arguments.verb}: {error}; {hint}", file=sys.stderr)
        return exit_code_of(error)
    except KeyboardInterrupt:
        return 130
