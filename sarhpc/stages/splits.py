"""Splits that a run was asked for, and whether they came out empty."""

from __future__ import annotations

from hpc.documents import read_json
from hpc.errors import DataError
from hpc.job.pipeline import Work
from hpc.publish import publish_json
from hpc.store.rundir import RunDir
from sarhpc.stages.config import RunConfig
from sarhpc.stages.work.sharded import sealed_records

SPLITS_FILE = "splits.json"
"""Beside the plan of a sealed stage of shards: samples of each split."""
SPLITS = ("train", "val", "test")
STAGES = ("caption", "tile")
"""Stages that publish them, the last one first."""


def asked_for(config: RunConfig) -> list[str]:
    """The splits that have a share of the tiles."""
    imported = config.imported
    shares = config.tile.split.fractions if imported is None else imported.fractions
    return [name for name, share in zip(SPLITS, shares, strict=True) if share > 0]


def publish_split_counts(work: Work) -> None:
    """Publish how many samples each split of the stage has, once all its shards are made."""
    counts: dict[str, int] = {}
    for record in work.ledger.records().values():
        split = record.detail["split"]
        counts[split] = counts.get(split, 0) + record.samples
    publish_json(work.run.stage(work.plan.stage) / SPLITS_FILE, {"samples": counts})


def split_warnings(run: RunDir, config: RunConfig) -> list[str]:
    """A line if splits came out empty that were asked for; nothing before the tiles are made."""
    for stage in STAGES:
        path = run.stage(stage) / SPLITS_FILE
        if run.ledger(stage).sealed and path.is_file():
            counts = read_json(path)["samples"]
            empty = [name for name in asked_for(config) if not counts.get(name)]
            return [f"{_said(empty, stage)}; {_remedy(config)}"] if empty else []
    return []


def require_held_out(run: RunDir, config: RunConfig) -> None:
    """Raise DataError if every split that the corpus is compared with came out empty.

    Where none of them was asked for, the tiles that were trained on are taken, and the report says
    so.
    """
    if not run.ledger("caption").sealed:
        return
    wanted = config.evaluate.real_splits
    filled = {r.detail["split"] for r in sealed_records(run, "caption") if r.samples}
    empty = [name for name in wanted if name in asked_for(config)]
    if empty and not filled & set(wanted):
        raise DataError(
            f"{_said(empty, 'caption')}, and evaluate.real_splits={wanted} compares the corpus "
            f"with it; {_remedy(config)}"
        )


def _said(empty: list[str], stage: str) -> str:
    return f"split {' and '.join(empty)} came out empty: no sample of {stage} is in it"


def _remedy(config: RunConfig) -> str:
    key = "tile.split.fractions" if config.imported is None else "imported.fractions"
    smaller = " or smaller cells (tile.split.cell_m)" if config.imported is None else ""
    return f"start a new run with more scenes, another share ({key}){smaller}"
