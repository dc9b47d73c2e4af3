"""The layer `other` through the stages: files of two polarisations, of which one is tiled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from hpc.config import fingerprint, loads, to_yaml
from hpc.errors import DataError
from hpc.job.pipeline import ensure_plan, seal
from hpc.store.rundir import RunDir, create_run
from sarhpc.cli import main
from sarhpc.shards.images import decode_gray8
from sarhpc.shards.reader import read_shard
from sarhpc.stages.config import RunConfig
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.tile import make_tile_shard
from sarhpc.stages.work.sharded import make_and_record

CONFIG = """
archive: {uri: ARCHIVE, polarization: HH}
tile:
  tile_px: 128
  shard_samples: 3
  max_saturated: 1.0
  conditions: [other]
  other: {polarization: HV, max_days: 1}
  split: {fractions: [1.0, 0.0, 0.0]}
"""
DECLARED = """
defaults: {role: sar, range_direction: +col, calibrated: true, band: X, looks: 1,
           datetime: '2024-05-01T10:00:00Z'}
files:
  "*hh.tif": {polarization: HH}
  "*hv.tif": {polarization: HV}
"""
SIDE = 260


def write(path: Path, pixels: np.ndarray, spacing: float, turn: float) -> None:
    about = Affine.translation(500_000.0, 4_800_000.0) @ Affine.rotation(turn)
    corner = Affine.translation(-pixels.shape[1] / 2, -pixels.shape[0] / 2)
    with rasterio.open(
        path, "w", driver="GTiff", width=pixels.shape[1], height=pixels.shape[0], count=1,
        dtype="float32", crs="EPSG:32631",
        transform=about @ Affine.scale(spacing, -spacing) @ corner,
    ) as file:  # fmt: skip
        file.write(pixels, 1)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(5)
    write(folder / "a_hh.tif", np.sqrt(rng.exponential(1, (SIDE, SIDE))).astype("f4"), 0.35, 0)
    write(folder / "a_hv.tif", np.sqrt(rng.exponential(0.1, (300, 300))).astype("f4"), 0.5, 30)
    (folder / "sarhpc.yaml").write_text(DECLARED)
    out = tmp_path_factory.mktemp("catalogue")
    assert main(["catalog", str(folder), "--out", str(out)]) == 0
    return out


def tiled(root: Path, archive: Path, *words: str) -> RunDir:
    """A run whose stage `tile` is made and sealed."""
    config = loads(RunConfig, CONFIG.replace("ARCHIVE", str(archive)), words)
    run = create_run(root, to_yaml(config), fingerprint(config), words)
    stage = stage_named(load_run_config(run), "tile")
    plan = ensure_plan(run, stage)
    for task in plan.shards:
        make_and_record(make_tile_shard, str(run.root), "tile", plan.id, 0, task)
    seal(run, stage, plan)
    return run


@pytest.mark.slow
def test_partners_come_from_beyond_the_scenes_to_tile_and_shards_verify(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiled(tmp_path / "run", archive)
    records = run.ledger("tile").records().values()
    samples = [sample for record in records for sample in read_shard(Path(record.path))]
    assert len(samples) == 4
    for sample in samples:
        note = sample.meta["conditions"]["other"]
        assert (sample.meta["polarization"], note["polarization"]) == ("HH", "HV")
        assert note["delta_days"] == 0.0
        assert note["pixels"] == pytest.approx([0.7, 0.7], abs=1e-3)
        assert decode_gray8(sample.members["other.png"]).mean() > 20
    assert main(["verify", str(run.root)]) == 0
    assert main(["inspect", str(run.root), "--out", str(tmp_path / "page.html")]) == 0
    capsys.readouterr()


def test_a_scene_without_partner_is_told_with_what_to_do(archive: Path, tmp_path: Path) -> None:
    config = CONFIG.replace("ARCHIVE", str(archive)).replace("HV", "VV")
    loaded = loads(RunConfig, config, ())
    run = create_run(tmp_path / "run", to_yaml(loaded), fingerprint(loaded), ())
    wanted = r"no_partner: no scene of polarization=VV days=1.*widen tile\.other"
    with pytest.raises(DataError, match=wanted):
        ensure_plan(run, stage_named(load_run_config(run), "tile"))
