"""Twist, Doppler drift, noise and resolution of SICD images."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from pyproj import Transformer
from sicd_scenes import UP, band_noise, ground_matrix, plane_axes, write_sicd_scene

from hpc.config import loads
from hpc.errors import DataError
from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.formats.sicd.geometry import GroundAxes, Rectification, ground_axes
from sarhpc.archive.scene import AS_FORMED, Scene
from sarhpc.shards.images import decode_array
from sarhpc.stages.config import RunConfig
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


class OneScene:
    """An archive of one file."""

    def __init__(self, path: Path) -> None:
        self.scene = Scene("s", {"sar": path}, {"sar:frequency_band": "X"})

    def search(self, **_):
        yield self.scene


def tiles_of(path: Path, **settings):
    archive = OneScene(path)
    cfg = TileConfig(
        **{"tile_px": 64, "allow_uncalibrated": True, "write_complex": True, **settings}
    )
    cfg.split.fractions = [1.0, 0.0, 0.0]
    plan = plan_scenes(archive.search(), cfg)
    assert plan.rejected == {}, plan.rejected
    return [s for n, x in enumerate(plan.shards) for s in tile_shard(n, x, archive, cfg).samples]


def test_fifteen_degrees_of_twist_are_105_degrees_between_the_axes():
    axes = ground_axes(*plane_axes(45, 15), UP)
    assert axes.angle_deg == pytest.approx(105, abs=1)
    area = axes.row * axes.col * math.sin(math.radians(axes.angle_deg))
    taken_before = 1 / math.sin(math.radians(45))
    assert taken_before / area - 1 == pytest.approx(-0.069, abs=1e-3)


def test_a_straight_image_keeps_its_grid(tmp_path):
    path = write_sicd_scene(tmp_path / "a.nitf", band_noise((64, 48), 0.8))
    header = open_sar(Scene("s", {"sar": path})).header
    assert header.shape == (64, 48)
    assert header.spacing_m == pytest.approx((0.25 * math.sqrt(2), 0.25), rel=1e-9)
    assert header.facts == {}


def point_scene(shape, places, band=0.8):
    """Band-limited responses of unit energy at fractional (row, col) places."""
    rows, cols = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    field = np.zeros(shape, np.complex64)
    for number, (row, col) in enumerate(places):
        response = np.sinc(band * (rows - row)) * np.sinc(band * (cols - col))
        field += np.exp(1j * number) * response
    return field


def peak_near(amplitude, row, col):
    """Peak position by a parabola through the samples around the brightest one."""
    r0, c0 = round(row), round(col)
    window = amplitude[r0 - 6 : r0 + 7, c0 - 6 : c0 + 7]
    r, c = np.unravel_index(np.argmax(window), window.shape)

    def offset(values):
        low, mid, high = values
        return 0.5 * (low - high) / (low - 2 * mid + high)

    return (
        r0 - 6 + r + offset(window[r - 1 : r + 2, c]),
        c0 - 6 + c + offset(window[r, c - 1 : c + 2]),
    )


@pytest.mark.parametrize("twist", [15.0, -8.0])
def test_a_twisted_image_is_rectified_to_distances_on_the_ground(tmp_path, twist):
    shape, spacing = (320, 256), 0.25
    places = [(60.3, 40.2), (250.7, 60.5), (80.4, 210.8), (200.0, 130.0)]
    path = write_sicd_scene(tmp_path / "a.nitf", point_scene(shape, places), twist_deg=twist)
    reader = open_sar(Scene("s", {"sar": path}))
    header = reader.header
    assert abs(header.facts["rectified_axes_deg"] - 90) > 5
    pixels, valid = reader.read((0, header.shape[0]), (0, header.shape[1]))
    amplitude = np.abs(pixels)
    matrix = ground_matrix(45, twist)
    ground = np.array([matrix @ (np.array(place) * spacing) for place in places])
    axes = ground_axes(*plane_axes(45, twist), UP)
    shear = Rectification.of(axes, (spacing, spacing), shape, "a")
    found = np.array([
        peak_near(amplitude, row + shear.shear * col - min(shear.shear * (shape[1] - 1), 0), col)
        for row, col in places
    ]) * np.array(header.spacing_m)  # fmt: skip
    for i in range(len(places)):
        for j in range(i):
            wanted = np.linalg.norm(ground[i] - ground[j])
            assert np.linalg.norm(found[i] - found[j]) == pytest.approx(wanted, abs=0.1)
    # All of the stored image is there, and nothing else.
    assert valid.sum() == pytest.approx(shape[0] * shape[1], rel=0.01)


def test_rectified_speckle_keeps_its_power_and_single_look_statistics(tmp_path):
    field = band_noise((400, 300), 0.8, seed=3)
    path = write_sicd_scene(tmp_path / "a.nitf", field, twist_deg=10.0)
    reader = open_sar(Scene("s", {"sar": path}))
    pixels, valid = reader.read((0, reader.header.shape[0]), (0, 300))
    inner = np.abs(pixels[100:350, 20:280][valid[100:350, 20:280]]) ** 2
    assert inner.mean() == pytest.approx((np.abs(field) ** 2).mean(), rel=0.02)
    assert inner.mean() ** 2 / inner.var() == pytest.approx(1, abs=0.05)


def test_windows_equal_the_whole_rectified_image(tmp_path):
    path = write_sicd_scene(tmp_path / "a.nitf", band_noise((200, 150), 0.8), twist_deg=12.0)
    reader = open_sar(Scene("s", {"sar": path}))
    height = reader.header.shape[0]
    whole, valid = reader.read((0, height), (0, 150))
    for rows, cols in (((0, 37), (10, 150)), ((90, 140), (0, 33)), ((height - 5, height), (0, 9))):
        part, known = reader.read(rows, cols)
        assert np.allclose(part, whole[slice(*rows), slice(*cols)], atol=1e-6)
        assert (known == valid[slice(*rows), slice(*cols)]).all()


def test_axes_that_no_image_has_are_refused():
    with pytest.raises(DataError, match=r"a\.nitf: rows and columns are 155\.0 degrees apart"):
        Rectification.of(GroundAxes(1.0, 1.0, 155.0), (1.0, 1.0), (10, 10), "a.nitf")


def drifting(shape, spacing, cycles, band):
    """Speckle whose azimuth spectrum drifts by so many cycles a pixel over the columns."""
    y = (np.arange(shape[1]) - shape[1] // 2) * spacing
    slope = cycles / spacing / (y[-1] - y[0])
    centre = np.zeros((1, 2))
    centre[0, 1] = slope
    phase = np.exp(2j * np.pi * slope * y**2 / 2)
    return (band_noise(shape, band, seed=1) * phase[None]).astype(np.complex64), centre


def profile_db(samples):
    """Mean power of tiles over columns of tiles (azimuth in rows of tiles), dB around its mean."""
    found = {}
    for sample in samples:
        field = decode_array(sample.members["sar.npy"])
        found.setdefault(sample.meta["window"][1], []).append(np.mean(np.abs(field) ** 2))
    powers = np.array([np.mean(found[key]) for key in sorted(found)])
    return 10 * np.log10(powers / powers.mean())


def test_a_doppler_drift_is_deskewed_before_the_band_is_cut(tmp_path):
    field, centre = drifting((256, 1024), 0.25, 0.5, 0.5)
    settings = {"pixel_m": 0.5, "allow_upsampling": True}
    shaded = profile_db(tiles_of(write_sicd_scene(tmp_path / "a.nitf", field), **settings))
    assert np.ptp(shaded) > 1, "without the polynomial the drift shades azimuth"
    path = write_sicd_scene(tmp_path / "b.nitf", field, centre=centre)
    tiles = tiles_of(path, **settings)
    assert np.ptp(profile_db(tiles)) < 0.5
    assert tiles[0].meta["deskewed"] is True


def test_noise_floor_of_tiles_follows_from_noise_and_calibration(tmp_path):
    path = write_sicd_scene(
        tmp_path / "a.nitf", band_noise((256, 256), 0.8), noise_db=-30.0, sigma_zero=2.0
    )
    tiles = tiles_of(path, pixel_m=None)
    assert {tile.meta["noise_floor_db"] for tile in tiles} == {-26.99}


def test_resolution_is_told_before_and_after(tmp_path):
    path = write_sicd_scene(
        tmp_path / "a.nitf", band_noise((512, 512), 0.8), spacing=(0.2, 0.2), graze_deg=1e-9 + 30,
        window="TAYLOR",
    )  # fmt: skip
    [first, *_] = tiles_of(path, pixel_m=0.35)
    reported = first.meta["resolution"]
    assert reported["before"]["weighting"] == ["TAYLOR", "TAYLOR"]
    assert reported["before"]["pslr_db"][0] == pytest.approx(-30.3, abs=0.5)
    assert reported["after"]["pslr_db"][0] == pytest.approx(-18.5, abs=1.5)
    assert "cut to 0.71 of its band" in reported["after"]["weighting"][0]
    assert reported["after"]["irw_m"][0] > reported["before"]["irw_m"][0]
    [kept, *_] = tiles_of(path, pixel_m=None)
    assert kept.meta["resolution"]["after"] == kept.meta["resolution"]["before"]


def test_pixels_as_formed_are_placed_by_the_projection_of_the_file(test_data: Path):
    path = test_data / "nitf_six" / "sicd_50x50.nitf"
    header = open_sar(Scene("s", {"sar": path}, {AS_FORMED: True})).header
    assert header.placement is not None
    assert header.placement.to_json()["held_out_m"] < 0.01
    to_degrees = Transformer.from_crs(header.crs, "EPSG:4326", always_xy=True)
    found = to_degrees.transform(*header.placement.to_map(np.array([[0.5, 0.5]]))[0])
    # The corners of the file are on its terrain, 40 m from the height of the scene centre.
    assert found == pytest.approx((-73.590635, 45.292097), abs=6e-4)
    assert header.slant_spacing_m == pytest.approx((6.9719181, 2.5276104), rel=1e-6)


def test_the_configuration_of_open_sicds_cuts_in_the_slant_plane(tmp_path):
    path = write_sicd_scene(
        tmp_path / "a.nitf", band_noise((4096, 1024), 0.8), spacing=(0.25, 0.25), twist_deg=6.0
    )
    archive = OneScene(path)
    config = loads(RunConfig, (CONFIGS / "sarlo80_sdxl.yaml").read_text(), [])
    cfg = dataclasses.replace(config.tile, tile_px=256, split=SplitConfig(fractions=[1, 0, 0]))
    plan = plan_scenes(archive.search(), cfg)
    assert plan.rejected == {}
    [first, *_] = tile_shard(0, plan.shards[0], archive, cfg).samples
    assert (first.meta["plane"], first.meta["resampling"]) == ("slant", "fft")
    assert first.meta["pixel_m"] == pytest.approx(0.8, rel=1e-3)
    # 4,096 x 1,024 pixels of 0.25 m are 1,280 x 320 of 0.8 m.
    assert plan.counts["tiles"] == 5
