"""Stage `tile`: scenes to tile shards."""

from __future__ import annotations

import dataclasses
import functools

from hpc.publish import publish_json
from hpc.run.pipeline import Stage
from hpc.run.plan import Plan, ShardTask, make_plan
from hpc.run.rundir import RunDir
from sarhpc.archive.config import ArchiveConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.places import archive_uri, data_root
from sarhpc.stages.registry import load_run_config, stage_fingerprint
from sarhpc.stages.sharded import Made, sweep, work_through

SPLIT_FILE = "split.json"
"""Beside the plan: proof that its splits share no ground, scene pairs that do, and counts."""


def tile_stage(config: RunConfig) -> Stage:
    """The stage that cuts tiles."""
    return Stage(
        name="tile",
        needs=("simulate",) if config.simulate is not None else (),
        plan=plan_tile_shards,
        work=lambda work: work_through(make_tile_shard, work, workers=config.cluster.workers),
        finish=lambda work: sweep(data_root(work.run, config) / "tiles"),
    )


def archive_config(run: RunDir, config: RunConfig) -> ArchiveConfig:
    """The archive's configuration with its address filled in."""
    return dataclasses.replace(config.archive, uri=archive_uri(run, config))


def plan_tile_shards(run: RunDir) -> Plan:
    """Shards of one scene and one split each; scenes that cannot be tiled carry the reason."""
    from sarhpc.archive.catalogue import select_scenes
    from sarhpc.archive.readers import open_sar
    from sarhpc.tiling.plan import plan_scenes
    from sarhpc.tiling.proof import check_proof

    config = load_run_config(run)
    opener = functools.partial(open_sar, assume_calibrated=config.archive.assume_calibrated)
    scenes = select_scenes(archive_config(run, config))
    planned = plan_scenes(scenes, config.tile, opener=opener)
    if planned.proof:
        check_proof(planned.proof)
    facts = {"proof": planned.proof, "reflown": planned.reflown, "counts": planned.counts}
    publish_json(run.stage("tile") / SPLIT_FILE, facts)
    return make_plan(
        "tile",
        planned.shards,
        fingerprint=stage_fingerprint(config, "tile"),
        rejected=planned.rejected,
    )


def make_tile_shard(run: RunDir, task: ShardTask) -> Made:
    """Cut, judge and publish the tiles of one shard."""
    from sarhpc.archive.catalogue import open_archive
    from sarhpc.archive.readers import open_sar
    from sarhpc.shards.writer import write_shard
    from sarhpc.tiling.tile import tile_shard

    config = load_run_config(run)
    split = task.inputs["split"]
    path = data_root(run, config) / "tiles" / split / f"{task.id}.tar"
    opener = functools.partial(open_sar, assume_calibrated=config.archive.assume_calibrated)
    archive = open_archive(archive_uri(run, config))
    tiled = tile_shard(task.number, task.inputs, archive, config.tile, opener=opener)
    summary = write_shard(path, tiled.samples)
    return Made(
        path, summary.samples, summary.bytes, summary.sha256, tiled.rejected, {"split": split}
    )
