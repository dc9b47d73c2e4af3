"""Tiles of real radar images: airborne X band at 0.2 m, and a rotated, mirrored one at 2.5 m."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from scipy.ndimage import gaussian_filter, map_coordinates

from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.procedural.config import ProceduralConfig
from sarhpc.archive.procedural.simulate import scene_ids
from sarhpc.archive.procedural.write import write_scene
from sarhpc.archive.scene import Scene
from sarhpc.archive.stac_catalog import StacArchive, write_catalogue
from sarhpc.shards.images import decode_array, decode_rgb8
from sarhpc.shards.radiometry import decode_master
from sarhpc.shards.schema import validate_sample
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.orientation import determinant, inverse, transform
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard

TRAIN = SplitConfig(fractions=[1.0, 0.0, 0.0])
DIRECTIONS = ("+col", "-col", "+row", "-row")


class OneScene:
    """An archive of one scene."""

    def __init__(self, scene):
        self.scene = scene

    def search(self, **wanted):
        yield self.scene


def tiles_of(scene, cfg):
    archive = OneScene(scene)
    plan = plan_scenes([scene], cfg)
    assert plan.rejected == {}
    shards = [tile_shard(n, inputs, archive, cfg) for n, inputs in enumerate(plan.shards)]
    samples = [sample for shard in shards for sample in shard.samples]
    for sample in samples:
        validate_sample(sample)
    return samples, [shard.rejected for shard in shards]


def amplitude_of(sample):
    codes = decode_array(sample.members["sar16.npy"])
    return decode_master(codes, sample.meta["master_scale"])


def gotcha(test_data, name):
    properties = {
        "sarhpc:range_direction": "-row",
        "sarhpc:calibration": "sigma0",
        "sar:frequency_band": "X",
    }
    return Scene("gotcha", {"sar": test_data / "gotcha_xband" / name}, properties)


SLC = "derived_gotcha_az1-4_HH_slc_ground_0p2m.tif"
AMPLITUDE = "derived_gotcha_az1-4_HH_amp_u16_0p2m.tif"


def power_between(scene, window):
    row, col, rows, cols = window
    reader = open_sar(scene)
    pixels, valid = reader.read((row, row + rows), (col, col + cols))
    reader.close()
    power = np.abs(pixels.astype(np.complex128)) ** 2
    return power[valid].mean()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gotcha_keeps_its_intensity_from_20_cm_to_35_cm(test_data, direction):
    scene = gotcha(test_data, SLC)
    scene.properties["sarhpc:range_direction"] = direction
    [sample], _ = tiles_of(scene, TileConfig(tile_px=256, split=TRAIN))
    meta = sample.meta
    assert (meta["resampling"], meta["enl"], meta["pixel_m"]) == ("fft", 1.0, 0.35)
    assert meta["crs"] is None
    assert meta["footprint"] is None
    assert meta["window"][2:] == [448, 448]
    tile = np.mean(amplitude_of(sample).astype(np.float64) ** 2)
    assert tile / power_between(scene, meta["window"]) == pytest.approx(1, abs=0.01)


def test_gotcha_amplitude_is_averaged_in_intensity(test_data):
    scene = gotcha(test_data, AMPLITUDE)
    [sample], _ = tiles_of(scene, TileConfig(tile_px=256, split=TRAIN))
    meta = sample.meta
    assert meta["resampling"] == "multilook"
    assert 1 < meta["enl"] <= 4.6
    tile = np.mean(amplitude_of(sample).astype(np.float64) ** 2)
    assert tile / power_between(scene, meta["window"]) == pytest.approx(1, abs=0.01)


def test_gotcha_without_calibration_is_refused_by_name(test_data):
    scene = gotcha(test_data, SLC)
    del scene.properties["sarhpc:calibration"]
    plan = plan_scenes([scene], TileConfig(tile_px=256, split=TRAIN))
    assert plan.shards == []
    assert plan.rejected["gotcha"].startswith("uncalibrated: ")


def spacenet(test_data, direction):
    folder = test_data / "spacenet6_solaris"
    assets = {"sar": folder / "sar_hh.tif", "optical": folder / "rgb_unmasked.tif"}
    return Scene("sn6", assets, {"sarhpc:range_direction": direction})


NATIVE = TileConfig(tile_px=192, pixel_m=None, split=TRAIN)


def test_spacenet_is_refused_at_35_cm_and_kept_at_its_own_spacing(test_data):
    scene = spacenet(test_data, "-row")
    refused = plan_scenes([scene], TileConfig(tile_px=192, split=TRAIN))
    assert refused.rejected["sn6"].startswith("upsampling: 2.5 x 2.5 m to 0.35 m is finer by 7.1")
    [sample], _ = tiles_of(scene, NATIVE)
    assert sample.meta["resampling"] == "none"
    assert sample.meta["pixel_m"] == 2.5


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_rotated_mirrored_scene_goes_back_to_its_ground_to_a_pixel(test_data, direction):
    [sample], _ = tiles_of(spacenet(test_data, direction), NATIVE)
    affine = tuple(sample.meta["affine"])
    assert determinant(affine) == pytest.approx(6.25, rel=1e-3)
    decibel = 20 * np.log10(gaussian_filter(amplitude_of(sample), 1.0) + 1e-6)
    folder = test_data / "spacenet6_solaris"
    with rasterio.open(folder / "sar_masked.tif") as published:
        reference, grid = published.read(1), published.transform
    shifts = {
        shift: correlation(*geocode(decibel, affine, grid, reference.shape, shift), reference)
        for shift in near_shifts()
    }
    assert max(shifts, key=shifts.get) == (0, 0)
    assert shifts[0, 0] > 0.75


def test_radar_tile_and_optical_tile_show_the_same_edges(test_data):
    [sample], _ = tiles_of(spacenet(test_data, "-row"), NATIVE)
    affine = tuple(sample.meta["affine"])
    decibel = 20 * np.log10(gaussian_filter(amplitude_of(sample), 1.0) + 1e-6)
    with rasterio.open(test_data / "spacenet6_solaris" / "rgb_unmasked.tif") as optical:
        rgb, grid = optical.read().astype(np.float64), optical.transform
    # Water, roofs and fields differ in colour more surely than in brightness.
    reference = edges(gaussian_filter(rgb[2] - rgb[0], 0.55))
    found = {}
    for shift in near_shifts():
        image, inside = geocode(decibel, affine, grid, reference.shape, shift)
        found[shift] = correlation(edges(image), inside, reference)
    best = max(found, key=found.get)
    assert max(abs(best[0]), abs(best[1])) <= 1
    tile = decode_rgb8(sample.members["optic.png"]).mean(axis=-1)
    image, inside = geocode(tile, affine, grid, reference.shape, (0, 0))
    assert correlation(image, inside, rgb.mean(axis=0)) > 0.97


def near_shifts():
    return [(row, col) for row in range(-3, 4) for col in range(-3, 4)]


def edges(image):
    return np.hypot(*np.gradient(image))


def geocode(image, affine, grid, shape, shift):
    """`image` of a tile, looked up on a map grid displaced by whole map pixels, and where it is."""
    row, col = np.indices(shape) + 0.5
    x = grid.a * (col + shift[1]) + grid.c
    y = grid.e * (row + shift[0]) + grid.f
    at = transform(inverse(affine), np.stack([x, y], axis=-1)) - 0.5
    inside = ((at > 2) & (at < np.array(image.shape[::-1]) - 3)).all(axis=-1)
    return map_coordinates(image, [at[..., 1], at[..., 0]], order=1, mode="nearest"), inside


def correlation(image, inside, reference):
    known = inside & np.isfinite(reference)
    return np.corrcoef(image[known], reference[known])[0, 1]


@pytest.fixture(scope="module")
def procedural(tmp_path_factory):
    root = tmp_path_factory.mktemp("procedural")
    cfg = ProceduralConfig(scenes=2, size_px=256)
    write_catalogue([write_scene(cfg, name, root) for name in scene_ids(cfg)], root)
    return StacArchive(root)


def test_procedural_scenes_become_tiles_with_optic_land_cover_and_truth(procedural):
    cfg = TileConfig(tile_px=128, split=TRAIN)
    plan = plan_scenes(procedural.search(), cfg)
    assert plan.rejected == {}
    for number, inputs in enumerate(plan.shards):
        for sample in tile_shard(number, inputs, procedural, cfg).samples:
            validate_sample(sample)
            label, known = decode_array(sample.members["landcover.npy"])
            truth = sample.meta["truth"]
            assert decode_rgb8(sample.members["optic.png"]).shape == (128, 128, 3)
            assert sample.meta["optic_datetime"].endswith("Z")
            assert sample.meta["optic_delta_days"] >= 0
            assert known.all()
            assert truth["caption"]
            assert sum(truth["class_fractions"].values()) == pytest.approx(1, abs=0.001)
            assert len(np.unique(label)) == len(truth["class_fractions"])


def test_a_far_optical_date_is_left_out_when_a_limit_is_set(procedural):
    cfg = TileConfig(tile_px=128, split=TRAIN, max_optical_delta_days=0.001)
    plan = plan_scenes(procedural.search(), cfg)
    [sample, *_] = tile_shard(0, plan.shards[0], procedural, cfg).samples
    assert "optic.png" not in sample.members
    assert sample.meta["optic_datetime"] is None


def test_a_missing_or_corrupt_optical_file_costs_the_picture_not_the_tile(procedural, tmp_path):
    scene = next(iter(procedural.search()))
    torn = tmp_path / "optical.tif"
    torn.write_bytes(scene.assets["optical"].read_bytes()[:5000])
    cfg = TileConfig(tile_px=128, split=TRAIN)
    for path in (torn, tmp_path / "gone.tif"):
        damaged = Scene(scene.id, {**scene.assets, "optical": path}, scene.properties)
        samples, _ = tiles_of(damaged, cfg)
        assert samples
        assert all("optic.png" not in sample.members for sample in samples)


def test_a_corrupt_radar_image_is_rejected_by_name(procedural, tmp_path):
    scene = next(iter(procedural.search()))
    torn = tmp_path / "sar.tif"
    torn.write_bytes(scene.assets["sar"].read_bytes()[:100_000])
    damaged = Scene(scene.id, {**scene.assets, "sar": torn}, scene.properties)
    plan = plan_scenes([damaged], TileConfig(tile_px=128, split=TRAIN))
    assert plan.shards == []
    assert plan.rejected[scene.id].startswith("unreadable: ")
