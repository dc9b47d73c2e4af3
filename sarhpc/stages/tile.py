"""Stage `tile`: scenes to tile shards, or third-party images imported instead."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.cluster.allocation import current_allocation
from hpc.documents import read_json
from hpc.errors import ConfigError, DataError
from hpc.job.pipeline import Stage, Work
from hpc.job.shard_progress import counted
from hpc.publish import publish_json
from hpc.store.ledger import Record
from hpc.store.plan import Plan, ShardTask, make_plan
from hpc.store.rundir import RunDir
from sarhpc.archive.config import ArchiveConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.paths import archive_uri, data_root, import_config
from sarhpc.stages.inputs.sizes import assumed_side
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.spec import StageSpec
from sarhpc.stages.splits import publish_split_counts, split_warnings
from sarhpc.stages.work.executors import workers_here
from sarhpc.stages.work.sharded import ShardResult, make_missing_shards, remove_stale_files
from sarhpc.tiling.config import ImportConfig

if TYPE_CHECKING:
    from sarhpc.tiling.tile import TiledShard

TILE_BYTES_PER_PX = 7.1

SPLIT_FILE = "split.json"
"""Beside the plan: the proof that splits share no ground, scene pairs that do, and counts."""

WINDOW_FILE = "db_window.json"
"""Beside the plan, with `tile.db_scope=archive`: the window, what it clips, and the outliers."""

DUPLICATES_FILE = "duplicates.json"
"""Beside the plan, with `tile.dedupe`: rejected tile -> the tile it repeats, and why."""


def tile_stage(config: RunConfig, upstream: Sequence[str]) -> Stage:
    """The stage that cuts tiles."""
    return Stage(
        name="tile",
        needs=TILE.needs_in(upstream),
        plan=plan_tile_shards,
        work=lambda work: make_missing_shards(
            make_tile_shard, work, workers=config.cluster.workers
        ),
        finish=lambda work: finish_tiles(work, config),
        warnings=lambda run: split_warnings(run, config),
    )


def archive_config(run: RunDir, config: RunConfig) -> ArchiveConfig:
    """The archive's configuration with its address filled in."""
    return dataclasses.replace(config.archive, uri=archive_uri(run, config))


def plan_tile_shards(run: RunDir) -> Plan:
    """Shards of one scene and one split each; rejected scenes carry the reason."""
    from sarhpc.archive.formats.readers import open_sar
    from sarhpc.archive.stac_catalog import open_archive, select_scenes
    from sarhpc.tiling.pairs.conditions import CROSS_BAND
    from sarhpc.tiling.plan import plan_scenes
    from sarhpc.tiling.splits.proof import check_proof

    config = load_run_config(run)
    if config.imported is not None:
        return _plan_import(config, config.imported)
    opener = functools.partial(open_sar, assume_calibrated=config.archive.assume_calibrated)
    scenes = select_scenes(archive_config(run, config))
    # Partners are of another band than the scenes to tile, so all of the archive is offered.
    paired = CROSS_BAND in config.tile.conditions
    offered = open_archive(archive_uri(run, config)).search() if paired else None
    # A scene is surveyed in about a second, most of it in GDAL and NumPy without Python's lock.
    with ThreadPoolExecutor(workers_here(current_allocation(), config.cluster.workers)) as pool:
        planned = plan_scenes(scenes, config.tile, opener=opener, scatter=pool.map, offered=offered)
    if planned.proof:
        check_proof(planned.proof)
    rejected = dict(planned.rejected)
    if not planned.shards:
        rejected |= _dropped(planned.counts)
    facts = {"proof": planned.proof, "reflown": planned.reflown, "counts": planned.counts}
    if planned.resolutions:
        facts["resolution_m"] = planned.resolutions
    publish_json(run.stage("tile") / SPLIT_FILE, facts)
    if planned.window is not None:
        publish_json(run.stage("tile") / WINDOW_FILE, planned.window.to_json())
    return make_plan(
        "tile",
        planned.shards,
        fingerprint=TILE.fingerprint(config),
        rejected=rejected,
    )


def _dropped(counts: Mapping[str, int]) -> dict[str, str]:
    """Why the tiles of scenes that were not rejected are in no shard, as rows of `rejected`."""
    dropped = "tiles_dropped_"
    named = {name.removeprefix(dropped): n for name, n in counts.items() if dropped in name and n}
    remedy = "; give larger scenes, a smaller tile.split.buffer_m, or one split alone"
    return {
        f"{number} tiles": reason + (remedy if reason.startswith("split") else "")
        for reason, number in named.items()
    }


def _plan_import(config: RunConfig, imported: ImportConfig) -> Plan:
    from sarhpc.tiling.image_import import plan_import

    planned = plan_import(import_config(imported))
    return make_plan(
        "tile",
        planned.shards,
        fingerprint=TILE.fingerprint(config),
        rejected=planned.rejected,
    )


def make_tile_shard(run: RunDir, task: ShardTask) -> ShardResult:
    """Cut (or convert), judge and publish the tiles of one shard."""
    from sarhpc.shards.writer import write_shard

    config = load_run_config(run)
    split = task.inputs["split"]
    path = data_root(run, config) / "tiles" / split / f"{task.id}.tar"
    tiled = _tiles(run, config, task)
    planned = len(task.inputs["items" if config.imported is not None else "tiles"])
    samples = counted(tiled.samples, run.stage("tile"), task.id, planned)
    summary = write_shard(path, samples)
    return ShardResult(
        path, summary.samples, summary.bytes, summary.sha256, tiled.rejected, {"split": split}
    )


def _tiles(run: RunDir, config: RunConfig, task: ShardTask) -> TiledShard:
    if config.imported is not None:
        from sarhpc.tiling.image_import import import_shard

        settings, dedupe = import_config(config.imported), config.tile.dedupe
        return import_shard(task.number, task.inputs, settings, fingerprints=dedupe)
    from sarhpc.archive.formats.readers import open_sar
    from sarhpc.archive.stac_catalog import open_archive
    from sarhpc.tiling.tile import tile_shard

    opener = functools.partial(open_sar, assume_calibrated=config.archive.assume_calibrated)
    archive = open_archive(archive_uri(run, config))
    return tile_shard(task.number, task.inputs, archive, config.tile, opener=opener)


def finish_tiles(work: Work, config: RunConfig) -> None:
    """Remove temporary files of killed writers, publish counts by split, and repeated tiles.

    Derived from the shards alone: independent of the order in which they were made.
    """
    remove_stale_files(data_root(work.run, config) / "tiles")
    publish_split_counts(work)
    if config.tile.dedupe:
        publish_duplicates(work.run, work.ledger.records().values())


def publish_duplicates(run: RunDir, records: Iterable[Record]) -> None:
    """Find the tiles that repeat others, over all shards and splits, and publish them."""
    import numpy as np

    from sarhpc.shards.reader import read_member
    from sarhpc.shards.sample import decode_meta
    from sarhpc.tiling.duplicates import COPY, find_duplicates, fingerprints

    metas = (
        [decode_meta(data, key) for key, data in read_member(Path(record.path), "meta.json")]
        for record in records
    )
    tiles = np.concatenate([fingerprints(shard) for shard in metas])
    found = find_duplicates(tiles)
    copies = sum(duplicate.why == COPY for duplicate in found)
    publish_json(
        run.stage("tile") / DUPLICATES_FILE,
        {
            "tiles": len(tiles),
            "copies": copies,
            "same_ground": len(found) - copies,
            "duplicates": {d.key: {"of": d.of, "why": d.why, "bits": d.bits} for d in found},
        },
    )


def duplicates_by_shard(run: RunDir, config: RunConfig) -> dict[str, dict[str, str]]:
    """Shard id -> key of each rejected tile -> the tile it repeats; empty without `dedupe`."""
    if not config.tile.dedupe:
        return {}
    found = read_json(run.stage("tile") / DUPLICATES_FILE)["duplicates"]
    shards: dict[str, dict[str, str]] = {}
    for key, duplicate in found.items():
        shards.setdefault(key[:6], {})[key] = duplicate["of"]
    return shards


def check_settings(config: RunConfig) -> None:
    """Raise ConfigError unless scenes can be cut, or images imported, as configured."""
    from sarhpc.tiling.config_checks import check_config, check_import

    if config.imported is not None:
        check_import(config.imported)
    else:
        check_config(config.tile)
        if config.archive.bbox is not None and len(config.archive.bbox) != 4:
            raise ConfigError(
                f"archive.bbox={config.archive.bbox}: give four numbers: west, south, east, north"
            )
        _check_simulated(config)


def _check_simulated(config: RunConfig) -> None:
    """Raise ConfigError if the scenes that the run simulates are smaller than a tile."""
    made = config.simulate
    if made is None:
        return
    pixels = int(made.size_px * made.pixel_m / (config.tile.pixel_m or made.pixel_m) + 1e-6)
    if pixels < config.tile.tile_px:
        raise ConfigError(
            f"simulate.size_px={made.size_px}: scenes of {pixels} px at the spacing of the tiles "
            f"are smaller than tile.tile_px={config.tile.tile_px}; give larger scenes or smaller "
            "tiles"
        )


def check_inputs(run: RunDir, config: RunConfig) -> None:
    """Raise ConfigError if images or archive are not there, or no scene gives a tile.

    Scenes are judged by their headers, until one of them may give a tile.
    """
    if config.imported is not None:
        _require_path("imported.path", import_config(config.imported).path)
    elif config.archive.uri:
        uri = archive_uri(run, config)
        # A scheme is that of a plug-in, which knows what is there.
        if ":" not in uri or Path(uri).exists():
            _require_path("archive.uri", uri)
            _require_tiles(run, config, uri)


def _require_path(key: str, path: str) -> None:
    if not Path(path).exists():
        raise ConfigError(f"{key}={path} does not exist; give a path that this machine can read")


def _require_tiles(run: RunDir, config: RunConfig, uri: str) -> None:
    from sarhpc.archive.formats.readers import open_sar
    from sarhpc.archive.stac_catalog import select_scenes
    from sarhpc.tiling.refusals import refused_scenes

    try:
        scenes = select_scenes(archive_config(run, config))
    except DataError as error:
        raise ConfigError(f"archive.uri={uri}: {error}") from error
    if not scenes:
        raise ConfigError(
            f"archive.uri={uri} has no scene that archive.band, polarization, bbox, datetime and "
            "ids select; set them to null, or name another catalogue"
        )
    opener = functools.partial(open_sar, assume_calibrated=config.archive.assume_calibrated)
    refused = refused_scenes(scenes, config.tile, opener)
    if refused:
        why = "; ".join(f"{scene}: {reason}" for scene, reason in list(refused.items())[:5])
        raise ConfigError(
            f"archive.uri={uri}: no tile could be cut from any of {len(refused)} scenes ({why})"
        )


def most_tiles(config: RunConfig) -> int:
    """Tiles of a full shard."""
    return (config.imported or config.tile).shard_samples


def shard_pixels(config: RunConfig) -> int:
    """Pixels of the tiles of a full shard."""
    return assumed_side(config) ** 2 * most_tiles(config)


def window_notes(config: RunConfig, plan: Plan | None) -> list[str]:
    """The dB window of the archive, where one was planned."""
    if config.imported is not None or config.tile.db_scope != "archive":
        return []
    scenes = [] if plan is None else [task.inputs["scene"] for task in plan.shards[:1]]
    laws = [scene["normalisation"] for scene in scenes]
    return [
        f"one dB window for all scenes: {20 * math.log10(law['low']):.1f} to "
        f"{20 * math.log10(law['top']):.1f} dB"
        for law in laws
        if law["mode"] == "db"
    ]


TILE: StageSpec = StageSpec(
    name="tile",
    help="cut the scenes of the archive into tile shards",
    branches=("archive", "tile", "imported"),
    build=tile_stage,
    needs=("simulate",),
    check=check_settings,
    check_inputs=check_inputs,
    sharded=True,
    shard_bytes=lambda config: TILE_BYTES_PER_PX * shard_pixels(config),
    notes=window_notes,
    request="cpu_node",
)
