"""The line on real airborne X-band scenes: GOTCHA at 0.35 m, SpaceNet 6 at its own 2.5 m."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from line_runs import CAPTIONS, start_stage

from hpc.config import fingerprint, loads, to_yaml
from hpc.job.pipeline import run_stage
from hpc.store.rundir import RunDir, create_run
from sarhpc.cli import main
from sarhpc.shards.images import decode_array
from sarhpc.shards.reader import read_shard
from sarhpc.shards.sample import Sample
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.paths import embedded_root
from sarhpc.stages.registry import line_of_stages, stage_named
from sarhpc.stages.run_config import load_run_config

GOTCHA = """
defaults: {band: X, polarization: HH, platform: gotcha, instrument_mode: spotlight}
files:
  "derived_*_slc_*.tif":
    {id: gotcha, range_direction: "-col", incidence_deg: 44.3, calibrated: true}
  "derived_*_amp_*.tif": {role: skip}
"""
SPACENET = """
defaults: {band: X, platform: capella-airborne, datetime: 2019-08-23}
files:
  sar_??.tif: {range_direction: "+col", look_side: right}
  rgb_unmasked.tif: {datetime: "2019-08-31T12:00:00+02:00"}
"""
CONFIG = """
archive: {uri: ARCHIVE}
tile:
  tile_px: 64
  shard_samples: 16
  min_signal: 0.0
  max_saturated: 1.0
  split: {fractions: [1.0, 0.0, 0.0]}
caption: {captioner: blip, model: "embedded:blip", batch: 4, template: {token: A SAR image of}}
train:
  global_batch: 4
  micro_batch: 2
  max_steps: 3
  warmup_steps: 1
  precision: fp32
  ema_decay: 0.5
  validation_every_steps: 0
generate: {prompts: [a lake, a road], images: 4, steps: 2, batch: 2, shard_samples: 2}
evaluate: {tiles: 16, bootstrap: 3, gallery: 2, orientation_steps: 0}
cluster: {workers: 1, ranks: 1}
"""

pytestmark = pytest.mark.slow


def catalogue(source: Path, sidecar: str, root: Path) -> Path:
    """The catalogue of a folder of real files, by the verb a user types."""
    folder = root / "files"
    folder.mkdir(parents=True)
    for path in source.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "sarhpc.yaml").write_text(sidecar)
    assert main(["catalog", str(folder), "--out", str(root / "catalogue")]) == 0
    return root / "catalogue"


def model_of(folder: Path, tile_px: int) -> Path:
    from sarhpc.diffusion.bundle import new_bundle, save_bundle
    from sarhpc.diffusion.config import AutoencoderShape, BundleConfig, TextShape, UNetShape
    from sarhpc.diffusion.tokenizer import train_clip_tokenizer

    shapes = BundleConfig(
        unet=UNetShape(tile_px // 8, [8, 16], [True, False], attention_heads=2, norm_groups=4),
        text=TextShape(hidden=16, layers=2, heads=2, intermediate=32, positions=24),
        vae=AutoencoderShape([4, 4, 8, 8], norm_groups=4, sample_size=tile_px),
    )
    tokenizer = train_clip_tokenizer(CAPTIONS, 540, folder / "tokenizer", max_length=24)
    save_bundle(new_bundle(shapes, tokenizer), folder / "model")
    return folder / "model"


def begin(root: Path, archive: Path, words: list[str]) -> RunDir:
    config = loads(RunConfig, CONFIG.replace("ARCHIVE", str(archive)), words)
    return create_run(root, to_yaml(config), fingerprint(config), words)


def bring(run: RunDir, until: str) -> None:
    """Every stage up to `until`, in this process but for training.

    DeepSpeed keeps the process groups it saw first, so a process trains once in its life.
    """
    for stage in line_of_stages(load_run_config(run)):
        if stage.collective:
            assert start_stage(run, stage.name).wait() == 0
        else:
            run_stage(run, stage)
        if stage.name == until:
            return


def samples(run: RunDir, stage: str) -> list[Sample]:
    records = run.ledger(stage).records().values()
    return [sample for record in records for sample in read_shard(Path(record.path))]


def native_intensity(path: Path, window: list[int]) -> float:
    row, col, height, width = window
    with rasterio.open(path) as file:
        pixels = file.read(1, window=((row, row + height), (col, col + width)))
    return float((np.abs(pixels.astype(np.complex128)) ** 2).mean())


@pytest.fixture(scope="module")
def gotcha_run(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    root = tmp_path_factory.mktemp("gotcha")
    archive = catalogue(test_data / "gotcha_xband", GOTCHA, root)
    model = model_of(root, 256)
    words = [
        "tile.tile_px=256", "tile.stride_px=100", "caption.missing_optical=fallback",
        "caption.fallback=a car park", f"train.base_model={model}",
    ]  # fmt: skip
    run = begin(root / "run", archive, words)
    bring(run, "evaluate")
    return run


def test_gotcha_goes_through_the_line_and_keeps_its_intensity(
    gotcha_run: RunDir, test_data: Path
) -> None:
    tiles = samples(gotcha_run, "tile")
    assert len(tiles) >= 1
    source = test_data / "gotcha_xband" / "derived_gotcha_az1-4_HH_slc_ground_0p2m.tif"
    for tile in tiles:
        meta = tile.meta
        assert (meta["resampling"], meta["pixel_m"], meta["native_pixel_m"]) == (
            "fft",
            0.35,
            [0.2, 0.2],
        )
        assert meta["range_direction"] == "+col"
        assert (meta["crs"], meta["footprint"]) == (None, None)
        amplitude = (
            decode_array(tile.members["sar16.npy"]).astype(np.float64) * meta["master_scale"]
        )
        native = native_intensity(source, meta["window"])
        assert (amplitude**2).mean() == pytest.approx(native, rel=0.01)
    assert len(samples(gotcha_run, "generate")) == 4
    assert (gotcha_run.root / "report.html").stat().st_size > 10_000


def test_a_scene_without_optical_cover_says_so(test_data: Path, tmp_path: Path) -> None:
    archive = catalogue(test_data / "gotcha_xband", GOTCHA, tmp_path)
    run = begin(tmp_path / "run", archive, ["tile.tile_px=256", "tile.stride_px=100"])
    bring(run, "caption")
    rejected = [record.rejected for record in run.ledger("caption").records().values()]
    tiles = len(samples(run, "tile"))
    assert sum(counts.get("no_optical", 0) for counts in rejected) == tiles > 0
    assert samples(run, "caption") == []


def test_spacenet_tiles_are_captioned_from_their_optical_image(
    test_data: Path, tmp_path: Path
) -> None:
    if not (embedded_root() / "blip").is_dir():
        pytest.skip("the embedded captioner is not in this tree: run `make embedded`")
    archive = catalogue(test_data / "spacenet6_solaris", SPACENET, tmp_path)
    model = model_of(tmp_path, 64)
    run = begin(tmp_path / "run", archive, ["tile.pixel_m=null", f"train.base_model={model}"])
    bring(run, "evaluate")
    captioned = samples(run, "caption")
    assert {sample.meta["scene_id"] for sample in captioned} >= {"sar_hh", "sar_vv"}
    for sample in captioned:
        assert sample.caption is not None
        assert sample.caption.startswith("A SAR image of ")
        assert sample.meta["resampling"] == "none"
        assert sample.meta["crs"] == "EPSG:32631"
        a, b, _, d, e, _ = sample.meta["affine"]
        # The scene is stored mirrored: its determinant keeps the sign unless one axis is flipped.
        assert a * e - b * d == pytest.approx(6.25, rel=1e-3)
    assert len(samples(run, "generate")) == 4


def test_uncalibrated_scenes_are_refused_by_name(test_data: Path, tmp_path: Path) -> None:
    sidecar = GOTCHA.replace(", calibrated: true", "")
    archive = catalogue(test_data / "gotcha_xband", sidecar, tmp_path)
    run = begin(tmp_path / "run", archive, ["tile.tile_px=256"])
    plan = stage_named(load_run_config(run), "tile").plan(run)
    assert plan.shards == ()
    assert "uncalibrated" in plan.rejected["gotcha"]
