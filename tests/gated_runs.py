"""Runs of a tiny model with a gate that quarantines about one image in twenty."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from line_runs import seal_captions, seal_export, tiny_run

from hpc.job.pipeline import ensure_plan, seal
from hpc.store.rundir import RunDir
from sarhpc.stages.generate import make_corpus_shard
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.work.sharded import make_and_record

IMAGES = (
    "tile.tile_px=64", "generate.height_px=64", "generate.width_px=64", "generate.steps=2",
    "generate.guidance=1.0", "generate.batch=8", "evaluate.tiles=8",
)  # fmt: skip
"""Images of 64 px in 20 ms each."""


def image_run(root: Path, model: Path, *words: str) -> RunDir:
    """A run whose next stage is `generate`."""
    run = tiny_run(root, model, [*IMAGES, *words])
    seal_captions(run)
    seal_export(run, model)
    return run


def real_tiles(root: Path, model: Path, count: int = 240) -> Path:
    """Folder of shards of images of a model: of these, a gate rejects further ones as asked.

    No gate of limits from radar tiles accepts anything of a model of random weights.
    """
    run = image_run(
        root, model, "generate.prompts=[a lake, a field]", "generate.seed=99",
        f"generate.images={count}", f"generate.shard_samples={count}",
    )  # fmt: skip
    make_corpus(run)
    return run.root / "data/synthetic"


def gated_run(root: Path, model: Path, tiles: Path, *words: str) -> RunDir:
    """A run that generates by a gate with limits from `tiles`."""
    gate = f"{{false_rejects: 0.08, redraws: 2, shards: {tiles}}}"
    prompts = "generate.prompts=[a lake, a field, a town]"
    return image_run(root, model, prompts, f"generate.gate={gate}", *words)


def make_corpus(run: RunDir, shards: Sequence[int] | None = None) -> None:
    """Make the planned shards in this process, in the order given, and seal if those are all."""
    stage = stage_named(load_run_config(run), "generate")
    plan = ensure_plan(run, stage)
    for number in range(len(plan.shards)) if shards is None else shards:
        task = plan.shards[number]
        make_and_record(make_corpus_shard, str(run.root), "generate", plan.id, 0, task)
    if not run.ledger("generate").missing(plan):
        seal(run, stage, plan)
