"""Stage `optical`: optical images for existing tiles, so that they can be redone alone."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.errors import ConfigError, DataError
from hpc.job.pipeline import Stage
from hpc.publish import digest_file, publish_json
from hpc.store.plan import Plan, ShardTask
from hpc.store.rundir import RunDir
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.paths import archive_uri, data_root, optical_config
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.spec import StageSpec
from sarhpc.stages.tile import shard_pixels
from sarhpc.stages.work.sharded import (
    ShardResult,
    make_missing_shards,
    remove_stale_files,
    sealed_records,
)

if TYPE_CHECKING:
    from sarhpc.archive.ancillary.optical_images import OpticalIndex
    from sarhpc.shards.sample import Sample

OPTICAL_BYTES_PER_PX = 1.8

IMAGES_FILE = "images.json"
"""Beside the plan: the images to choose from, as they were when it was made."""
FILES = ("path", "cloud")
"""Keys of a listed image that name files or URLs."""
INSIDE = "run:"
"""Before the name of a file in the list that is inside the run directory."""


def optical_stage(config: RunConfig, upstream: Sequence[str]) -> Stage:
    """The stage that pairs tiles with optical images."""
    return Stage(
        name="optical",
        needs=OPTICAL.needs_in(upstream),
        plan=plan_optical_shards,
        work=lambda work: make_missing_shards(
            make_optical_shard, work, workers=config.cluster.workers
        ),
        finish=lambda work: remove_stale_files(data_root(work.run, config) / "optical"),
    )


def plan_optical_shards(run: RunDir) -> Plan:
    """One shard per tile shard; the images to choose from are listed beside the plan.

    Raises:
        ConfigError: nothing is at `optical.uri`, or tiles are cut with such images already.
        DataError: there are no optical images.
    """
    from sarhpc.archive.ancillary.optical_images import list_optical

    config = load_run_config(run)
    assert config.optical is not None
    require_separate(config)
    uri = optical_config(config.optical).uri or archive_uri(run, config)
    listing = list_optical(uri)
    if not listing.images:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(listing.left_out.items())[:5])
        raise DataError(f"no optical images at {uri}{f' ({why})' if why else ''}; see optical.uri")
    file = run.stage("optical") / IMAGES_FILE
    rows = [_stored_row(run, image.to_json()) for image in listing.images]
    publish_json(file, {"uri": _stored_name(run, uri), "images": rows})
    shared = {"images": digest_file(file).sha256}
    shards = (
        ShardTask(
            r.shard,
            {"tiles": run.stored(r.path), "sha256": r.sha256, "split": r.detail["split"], **shared},
        )
        for r in sealed_records(run, "tile")
    )
    fingerprint = OPTICAL.fingerprint(config)
    return Plan("optical", tuple(shards), fingerprint, rejected=dict(listing.left_out))


def require_separate(config: RunConfig) -> None:
    """Raise ConfigError if tiles are also cut with the images that this stage adds later."""
    if "optical" in config.tile.conditions or config.tile.require_optical:
        raise ConfigError(
            "tile.conditions=[optical] and tile.require_optical are about images cut with the "
            "tiles, and the stage `optical` adds others later: leave one of them out"
        )


def make_optical_shard(run: RunDir, task: ShardTask) -> ShardResult:
    """Choose, resample and publish the optical images of one tile shard."""
    from sarhpc.shards.reader import read_member
    from sarhpc.shards.writer import write_shard
    from sarhpc.tiling.pairs.optical_mosaic import pair_tiles

    config = load_run_config(run)
    assert config.optical is not None
    file = run.stage("optical") / IMAGES_FILE
    index = _index(run, str(file), task.inputs["images"])
    split = task.inputs["split"]
    path = data_root(run, config) / "optical" / split / f"{task.id}.tar"
    # Place and time of each tile; its pixels, most of the shard, stay unread.
    metas = read_member(run.located(task.inputs["tiles"]), "meta.json")
    shape = (config.tile.tile_px, config.tile.tile_px)
    tiles = ((key, json.loads(data), shape) for key, data in metas)
    paired = pair_tiles(tiles, index, optical_config(config.optical))
    summary = write_shard(path, paired.samples)
    return ShardResult(
        path, summary.samples, summary.bytes, summary.sha256, paired.missing, {"split": split}
    )


@functools.lru_cache(maxsize=2)
def _index(run: RunDir, file: str, digest: str) -> OpticalIndex:
    """The images to choose from, read once by each process."""
    from sarhpc.archive.ancillary.optical_images import OpticalImage, OpticalIndex

    if digest_file(Path(file)).sha256 != digest:
        raise DataError(
            f"{file} is not the list this stage was planned with; put it back, or start a new run"
        )
    rows = json.loads(Path(file).read_text())["images"]
    return OpticalIndex(tuple(OpticalImage.from_json(_located_row(run, row)) for row in rows))


def _stored_row(run: RunDir, row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, **{name: _stored_name(run, row[name]) for name in FILES if row[name]}}


def _located_row(run: RunDir, row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, **{name: _located_name(run, row[name]) for name in FILES if row[name]}}


def _stored_name(run: RunDir, name: str) -> str:
    """A file or URL as the list of images has it; a file of the run by its place inside."""
    stored = run.stored(name)
    return name if stored == name else f"{INSIDE}{stored}"


def _located_name(run: RunDir, name: str) -> str:
    if name.startswith(INSIDE):
        return str(run.located(name.removeprefix(INSIDE)))
    # Lists of before 0.2 name files of the run by where it was then.
    return str(run.located(name)) if name.startswith("/") else name


def optical_by_shard(run: RunDir, config: RunConfig) -> dict[str, dict[str, str]]:
    """Shard id -> inputs of its captioning that name its optical images; empty without them."""
    if config.optical is None:
        return {}
    return {
        record.shard: {"optical": run.stored(record.path), "optical_sha256": record.sha256}
        for record in sealed_records(run, "optical")
    }


def read_tiles(run: RunDir, inputs: Mapping[str, Any]) -> Iterator[Sample]:
    """The tiles of a shard to caption, in order, with the optical images they were given."""
    from sarhpc.shards.reader import read_shard
    from sarhpc.tiling.pairs.optical_mosaic import with_optical

    images = read_shard(run.located(inputs["optical"])) if "optical" in inputs else iter(())
    paired = next(images, None)
    for tile in read_shard(run.located(inputs["source"])):
        mine = paired if paired is not None and paired.key == tile.key else None
        yield with_optical(tile, mine)
        paired = paired if mine is None else next(images, None)


OPTICAL: StageSpec = StageSpec(
    name="optical",
    help="pair tiles with optical images from another source",
    branches=("optical",),
    build=optical_stage,
    needs=("tile",),
    enabled=lambda config: config.optical is not None,
    check=require_separate,
    sharded=True,
    shard_bytes=lambda config: OPTICAL_BYTES_PER_PX * shard_pixels(config),
)
