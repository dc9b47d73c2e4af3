"""The summary of a run's report: what was requested and produced, the cost, and the folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.observe.state import seconds_of
from hpc.observe.view import duration_text
from hpc.shell import quoted
from hpc.store.attempts import read_attempts
from hpc.store.plan import read_plan
from hpc.store.rundir import RunDir
from sarhpc.stages.config import RunConfig
from sarhpc.stages.work.packaging import gate_so_far
from sarhpc.stages.work.sharded import sealed_records

if TYPE_CHECKING:
    from sarhpc.evaluation.headline import Headline
    from sarhpc.evaluation.report import StageLine


def run_headline(
    run: RunDir, config: RunConfig, stages: Sequence[StageLine], folder: Path
) -> Headline:
    """The summary of a run whose corpus is sealed; the verdict is not part of it.

    Args:
        run: the run.
        config: of the run.
        stages: what each stage made, and its cost.
        folder: of the evaluation.
    """
    from sarhpc.evaluation.headline import Headline

    return Headline(
        asked=_asked(run, config, stages),
        came=_came(run),
        cost=_cost(run, stages),
        places=dict(_places(run, folder)),
    )


def _asked(run: RunDir, config: RunConfig, stages: Sequence[StageLine]) -> str:
    planned, prompts = _planned(run)
    what = f"{planned:,} images" + (f" of {prompts:,} prompts" if prompts else "")
    [trained] = sealed_records(run, "train")
    step = Path(trained.path).name.removeprefix("step_").lstrip("0") or "0"
    how = "an adapter to " if config.train.adapter is not None else ""
    tiles = next((line.samples for line in stages if line.name == "caption"), 0)
    return (
        f"{what}, by {how}{config.train.base_model} trained for {int(step):,} steps on an archive "
        f"of {tiles:,} tiles"
    )


def _planned(run: RunDir) -> tuple[int, int]:
    """Planned images, and their prompts; 0 prompts where the plan holds ranges of a table."""
    shards = [task.inputs for task in read_plan(run.plan_file("generate")).shards]
    images = sum(one.get("count", len(one.get("images", ()))) for one in shards)
    return images, len({prompt for one in shards for prompt in one.get("prompts", ())})


def _came(run: RunDir) -> str:
    records = sealed_records(run, "generate")
    images = sum(record.samples for record in records)
    came = f"{images:,} images in {len(records):,} {'shard' if len(records) == 1 else 'shards'}"
    gate = gate_so_far(run)
    if gate is not None:
        came += (
            f"; the gate of single images quarantined {gate.quarantined:,} of {gate.draws:,} draws"
        )
    return came


def _cost(run: RunDir, stages: Sequence[StageLine]) -> str:
    took = {line.name: _job_seconds(run, line.name) for line in stages}
    longest = sorted(took, key=lambda name: -took[name])[:3]
    named = ", ".join(f"{name} {duration_text(took[name])}" for name in longest)
    starts = sum(line.attempts for line in stages)
    return (
        f"{duration_text(sum(took.values()))} of jobs in {starts} starts of {len(stages)} stages "
        f"({named}); GPU-hours: sarhpc costs {quoted(run.root)}"
    )


def _job_seconds(run: RunDir, stage: str) -> float:
    """Time for which the starts of a stage ran; of one that did not end, what is not known is 0."""
    began: dict[tuple[Any, Any], float] = {}
    total = 0.0
    for row in read_attempts(run.stage(stage)):
        key = row["attempt"], row.get("element")
        if "from" in row:
            began[key] = seconds_of(row.get("started"))
        if "to" in row and key in began:
            total += max(seconds_of(row.get("ended")) - began[key], 0.0)
    return total


def _places(run: RunDir, folder: Path) -> Iterator[tuple[str, str]]:
    yield "Run", str(run.root)
    first, *_ = sealed_records(run, "generate")
    yield "Corpus", str(Path(first.path).parent)
    yield "Model", str(run.stage("export") / "model")
    yield "Numbers", str(folder / "evaluation.json")
