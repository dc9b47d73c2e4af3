"""The verb `evaluate`: the stage of a run, a run from outside, or any two sets of images."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.documents import read_json
from hpc.errors import ConfigError
from hpc.store.rundir import RunDir, open_run
from sarhpc.cli.verbs import reading_finished_data
from sarhpc.stages.evaluate import EVALUATE
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config

if TYPE_CHECKING:
    from sarhpc.evaluation.compared import ComparedSets

RESULT = "evaluation.json"


def add_evaluate_arguments(verb: argparse.ArgumentParser) -> None:
    """Add what `evaluate` takes beside a run and the flags of a submission."""
    verb.add_argument("synthetic", nargs="?", metavar="SYNTH", help="compare this set with REAL, "
                      "the first argument, here and now: each a folder of shards or of images, a "
                      "tar, a run, or a stage of one such as RUN/tile")  # fmt: skip
    verb.add_argument("overrides", nargs="*", metavar="key=value", help="of two sets: settings of "
                      "`evaluate`, such as tiles=1000 or gates.lsd_db=3")  # fmt: skip
    verb.add_argument("--suite", metavar="PARTS", help="of two sets: radiometry, speckle, "
                      "spectrum, texture, orientation, features, text, memory, use, separated by "
                      "commas (default: all that is set)")  # fmt: skip
    verb.add_argument("--out", metavar="FOLDER", help="write into this folder, here and now; a "
                      "run is only read then, and may be anybody's (two sets: default "
                      "evaluation)")  # fmt: skip
    verb.add_argument("--workers", type=int, metavar="N", help="of two sets: processes that "
                      "measure (default: as many as cores)")  # fmt: skip
    verb.add_argument("--json", action="store_true", help="print the result as JSON")


def evaluates_here(arguments: argparse.Namespace) -> bool:
    """Whether the result is made here and now, and not by a job of the run."""
    if arguments.synthetic is None or "=" in arguments.synthetic:
        words = [arguments.synthetic, *arguments.overrides]
        given = [f"--{name}" for name in ("suite", "workers") if getattr(arguments, name)]
        if any(words) or given:
            raise ConfigError(
                f"{' '.join([*filter(None, words), *given])} is for two sets: name REAL and SYNTH; "
                "a run is evaluated by its own frozen configuration"
            )
        one = Path(arguments.run)
        if one.exists() and not RunDir(one.resolve()).frozen:
            raise ConfigError(
                f"{one} is not a run directory; to compare it with another set, name both: "
                "sarhpc evaluate REAL SYNTH"
            )
    return bool(arguments.synthetic or arguments.out or (arguments.json and not arguments.dry_run))


def evaluate_here(arguments: argparse.Namespace) -> int:
    """Evaluate two sets, or a run that is only read, and print the result; 4 if a gate fails."""
    if arguments.synthetic:
        return _evaluate_two(arguments)
    run = open_run(Path(arguments.run))
    if arguments.out:
        return _evaluate_elsewhere(run, Path(arguments.out), arguments.json)
    if not run.ledger(EVALUATE.name).sealed:
        raise ConfigError(f"{run.root} is not evaluated yet: sarhpc evaluate {run.quoted}")
    print(json.dumps(read_json(run.stage(EVALUATE.name) / RESULT), indent=2))
    return 0


def _evaluate_elsewhere(run: RunDir, out: Path, as_json: bool) -> int:
    from sarhpc.stages.evaluate import evaluate_elsewhere

    config = load_run_config(run)
    names = [stage.name for stage in line_of_stages(config)]
    with reading_finished_data():
        page = evaluate_elsewhere(run, names[: names.index(EVALUATE.name)], out)
    result = read_json(out / RESULT)
    print(json.dumps(result, indent=2) if as_json else f"page: {page.resolve()}")
    return 4 if config.evaluate.gates_fail and not result["gates_passed"] else 0


def _evaluate_two(arguments: argparse.Namespace) -> int:
    from sarhpc.api.evaluation import OUT, evaluate
    from sarhpc.evaluation.gates import passed

    out = Path(arguments.out or OUT)
    compared = evaluate(
        arguments.run,
        arguments.synthetic,
        out,
        arguments.overrides,
        suites=arguments.suite,
        workers=_cores() if arguments.workers is None else arguments.workers,
        report=_to_stderr,
    )
    if arguments.json:
        print(json.dumps(compared.to_json(), indent=2))
    else:
        _print_result(compared, out)
    return 0 if passed(compared.gates) else 4


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _cores() -> int:
    from hpc.cluster.allocation import current_allocation

    return current_allocation().cpus or len(os.sched_getaffinity(0))


def _print_result(compared: ComparedSets, out: Path) -> None:
    from sarhpc.evaluation.gates import line_of
    from sarhpc.measures.distances import DISTANCES
    from sarhpc.measures.nulls import Verdict

    sets = compared.evaluation.sets
    [name] = [name for name in sets if name != "real"]
    for note in compared.notes:
        print(note)
    print(f"{sets[name].tiles} synthetic against {sets['real'].tiles} real tiles, "
          f"{compared.facts['pixels']}")  # fmt: skip
    for metric, found in sets[name].measures.items():
        _, unit, text = DISTANCES[metric]
        line = f"{metric:18} {found.raw:9.3g} {unit:10}"
        if isinstance(found, Verdict):
            line += (
                f" null {found.null_median:.3g} (95 % {found.null_95:.3g}), p {found.p_value:.3f}"
            )
        else:
            line += " no verdict"
        print(f"{line}  {text}")
    for line in (*_feature_lines(compared, name), *_text_lines(compared, name)):
        print(line)
    for gate in compared.gates:
        print(line_of(gate))
    print(f"page: {(out / 'report.html').resolve()}")


def _feature_lines(compared: ComparedSets, name: str) -> Iterator[str]:
    """Yield a line for each distance between features of a set."""
    from sarhpc.evaluation.page_features import label_of

    block = compared.blocks.get("features", {"sets": {}})
    for vectors, measures in block["sets"].get(name, {}).items():
        for measure, found in measures.items():
            words = f"E9 {label_of(measure, vectors)}, features {vectors}"
            if "raw" not in found:
                yield f"{words}: no number, {found['reason']}"
                continue
            null = (
                f"null {found['null_median']:.3g} (95 % {found['null_95']:.3g}), "
                f"p {found['p_value']:.3f}"
                if "p_value" in found
                else "no verdict"
            )
            yield f"{words}: {found['raw']:.3g}, {null}, {found['tiles']} tiles a side"


def _text_lines(compared: ComparedSets, name: str) -> Iterator[str]:
    """Yield a line for each measure of a set's images against their captions."""
    from sarhpc.evaluation.page_text import measures_of

    block = compared.blocks.get("text", {"sets": {}})
    for words, found in measures_of(block["sets"].get(name, {})):
        if "value" not in found:
            yield f"E10 {words}: no number, {found['left_out']}"
            continue
        yield (
            f"E10 {words}: {found['value']:.3g} ({found['low']:.3g} to {found['high']:.3g}), "
            f"captions of other images {found['shuffled']['value']:.3g}, {found['images']} images"
        )
