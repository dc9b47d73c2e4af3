"""Tiles that repeat others through the stages: one archive with a copy and a second flight."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from line_runs import shard_digests
from rasterio.transform import from_origin
from scipy import ndimage

from hpc.config import fingerprint, loads, to_yaml
from hpc.errors import HpcError
from hpc.job.pipeline import Stage, Work, ensure_plan, seal
from hpc.store.plan import Plan
from hpc.store.rundir import RunDir, create_run
from sarhpc.captioning.config import CaptionSetConfig
from sarhpc.captioning.tuning.datasets import open_set
from sarhpc.cli import main
from sarhpc.shards.reader import read_shard
from sarhpc.stages.caption import make_caption_shard
from sarhpc.stages.config import RunConfig
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.tile import DUPLICATES_FILE, make_tile_shard
from sarhpc.stages.work.sharded import MakeShard, make_and_record

CONFIG = """
archive: {uri: ARCHIVE}
tile:
  tile_px: 256
  pixel_m: null
  shard_samples: 3
  max_saturated: 1.0
  dedupe: true
  split: {fractions: [1.0, 0.0, 0.0]}
caption:
  captioner: truth
  degenerate: fallback
  fallback: a car park
  template: {token: A SAR image of}
"""
DECLARED = (
    "defaults: {role: sar, range_direction: +col, incidence_deg: 40, calibrated: true, band: X}\n"
)


def amplitude(seed: int) -> np.ndarray:
    """One flight over the same fields and woods (512, 512), with speckle of its own."""
    noise = ndimage.gaussian_filter(np.random.default_rng(7).standard_normal((512, 512)), 12)
    speckle = np.random.default_rng(seed).exponential(1, noise.shape)
    return np.sqrt(np.exp(0.8 * noise / noise.std()) * speckle).astype(np.float32)


def write(path: Path, pixels: np.ndarray, east: float = 500_000.0) -> None:
    with rasterio.open(
        path, "w", driver="GTiff", width=512, height=512, count=1, dtype="float32",
        crs="EPSG:32631", transform=from_origin(east, 4_800_000.0, 0.5, 0.5),
    ) as file:  # fmt: skip
        file.write(pixels, 1)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write(folder / "a.tif", amplitude(1))
    write(folder / "b_copy_elsewhere.tif", amplitude(1), east=600_000.0)
    write(folder / "c_flown_again.tif", amplitude(2))
    (folder / "sarhpc.yaml").write_text(DECLARED)
    out = tmp_path_factory.mktemp("catalogue")
    assert main(["catalog", str(folder), "--out", str(out)]) == 0
    return out


def begin(root: Path, archive: Path, *words: str) -> RunDir:
    config = loads(RunConfig, CONFIG.replace("ARCHIVE", str(archive)), words)
    return create_run(root, to_yaml(config), fingerprint(config), words)


def make_all(run: RunDir, stage: str, make: MakeShard, *, backwards: bool = False) -> None:
    """Every shard of a stage in this process, in either order; not sealed."""
    plan = ensure_plan(run, named(run, stage))
    for task in reversed(plan.shards) if backwards else plan.shards:
        make_and_record(make, str(run.root), stage, plan.id, 0, task)


def named(run: RunDir, stage: str) -> Stage:
    return stage_named(load_run_config(run), stage)


def seal_it(run: RunDir, stage: str) -> Plan:
    plan = ensure_plan(run, named(run, stage))
    seal(run, named(run, stage), plan)
    return plan


@pytest.fixture(scope="module")
def captioned(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run = begin(tmp_path_factory.mktemp("run") / "run", archive)
    for stage, make in (("tile", make_tile_shard), ("caption", make_caption_shard)):
        make_all(run, stage, make)
        seal_it(run, stage)
    return run


def test_copies_and_second_flights_are_left_out_with_their_reason(captioned: RunDir) -> None:
    tiles = captioned.ledger("tile").records().values()
    assert sum(record.samples for record in tiles) == 12
    records = captioned.ledger("caption").records().values()
    kept = [s.meta["scene_id"] for r in records for s in read_shard(Path(r.path))]
    assert kept == ["a"] * 4
    assert sum(record.rejected.get("duplicate_of", 0) for record in records) == 8
    found = json.loads((captioned.stage("tile") / DUPLICATES_FILE).read_text())
    assert (found["tiles"], found["copies"], found["same_ground"]) == (12, 4, 4)
    plan = ensure_plan(captioned, named(captioned, "caption"))
    named_there = [task.inputs.get("duplicate_of", {}) for task in plan.shards]
    assert {key: of for shard in named_there for key, of in shard.items()} == {
        key: duplicate["of"] for key, duplicate in found["duplicates"].items()
    }


def test_order_of_the_shards_changes_no_byte(
    captioned: RunDir, archive: Path, tmp_path: Path
) -> None:
    run = begin(tmp_path / "run", archive)
    for stage, make in (("tile", make_tile_shard), ("caption", make_caption_shard)):
        make_all(run, stage, make, backwards=True)
        seal_it(run, stage)
        assert shard_digests(run, stage) == shard_digests(captioned, stage)
    names = [r.stage("tile") / DUPLICATES_FILE for r in (run, captioned)]
    assert names[0].read_bytes() == names[1].read_bytes()


@pytest.mark.parametrize("point", ["publish.before_rename", "publish.after_rename"])
def test_an_end_while_duplicates_are_published_is_made_good(
    point: str, archive: Path, captioned: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path / "run", archive)
    make_all(run, "tile", make_tile_shard)
    monkeypatch.setattr("hpc.publish._passages", {})
    monkeypatch.setenv("SARHPC_FAULT", f"{point}:1:raise")
    with pytest.raises(HpcError, match="fault injected"):
        seal_it(run, "tile")
    assert not run.ledger("tile").sealed
    monkeypatch.delenv("SARHPC_FAULT")
    seal_it(run, "tile")
    names = [r.stage("tile") / DUPLICATES_FILE for r in (run, captioned)]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_without_the_switch_plans_and_shards_know_nothing_of_it(
    archive: Path, tmp_path: Path
) -> None:
    run = begin(tmp_path / "run", archive, "tile.dedupe=false")
    make_all(run, "tile", make_tile_shard)
    seal_it(run, "tile")
    plan = named(run, "caption").plan(run)
    assert all("duplicate_of" not in task.inputs for task in plan.shards)
    assert not (run.stage("tile") / DUPLICATES_FILE).exists()


def test_the_captioner_does_not_learn_from_duplicates_either(tmp_path: Path) -> None:
    from sarhpc.shards.images import encode_rgb8
    from sarhpc.shards.sample import Sample, encode_json
    from sarhpc.shards.writer import write_shard

    optic = encode_rgb8(np.zeros((8, 8, 3), np.uint8))
    truth = encode_json({"truth": {"caption": "a lake"}})
    keys = ["00000000000", "00000000001"]
    samples = [Sample(key, {"optic.png": optic, "meta.json": truth}) for key in keys]
    write_shard(tmp_path / "train" / "000000.tar", samples)
    file = tmp_path / DUPLICATES_FILE
    file.write_text(json.dumps({"duplicates": {keys[1]: {"of": keys[0]}}}))
    left = open_set(CaptionSetConfig(path=str(tmp_path), without=str(file)))
    assert [image.name for image in left] == keys[:1]
    assert len(open_set(CaptionSetConfig(path=str(tmp_path)))) == 2


def test_finishing_is_the_same_before_and_after(captioned: RunDir) -> None:
    file = captioned.stage("tile") / DUPLICATES_FILE
    before = file.read_bytes()
    stage = named(captioned, "tile")
    assert stage.finish is not None
    plan = ensure_plan(captioned, stage)
    stage.finish(Work(captioned, plan, captioned.ledger("tile"), attempt=-1))
    assert file.read_bytes() == before
