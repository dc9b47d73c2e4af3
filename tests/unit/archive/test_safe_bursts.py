"""Bursts of a Sentinel-1 SLC: placed by their own time, valid as annotated, their ramp undone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from burst_files import BURSTS, CYCLE, LINES, NAME, SAMPLES, ground, place, ramp, write_bursts

from hpc.errors import DataError
from sarhpc.archive.catalog_builder import catalog_directory
from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.formats.safe.bursts import burst_layers, read_burst
from sarhpc.archive.scene import Scene
from sarhpc.archive.stac_catalog import StacArchive
from sarhpc.shards.images import decode_array
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard

GAIN = 400.0
WHOLE = (0, LINES), (0, SAMPLES)


@pytest.fixture(scope="module")
def field() -> np.ndarray:
    return ground()


@pytest.fixture(scope="module")
def measurement(field: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bursts(tmp_path_factory.mktemp("safe"), field)


def burst_reader(path: Path, number: int):
    return open_sar(Scene("b", {"sar": path}, {"sarhpc:layer": f"burst-{number:02d}"}))


def outside(pixels: np.ndarray, band: float) -> float:
    """Share of the power beyond +-`band` cycles per line."""
    spectrum = np.abs(np.fft.fft(pixels, axis=0)) ** 2
    beyond = np.abs(np.fft.fftfreq(len(pixels))) > band
    return float(spectrum[beyond].sum() / spectrum.sum())


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_spectrum_of_a_burst_is_centred(
    measurement: Path, field: np.ndarray, number: int
) -> None:
    pixels, valid = burst_reader(measurement, number).read(*WHOLE)
    first = CYCLE * (number - 1)
    assert np.allclose(pixels[valid], field[first : first + LINES][valid] / GAIN, atol=2e-5)
    stored = open_sar(Scene("s", {"sar": measurement}, {}))
    raw, _ = stored.read((LINES * (number - 1), LINES * number), (0, SAMPLES))
    assert outside(raw, 0.34) > 0.2
    assert outside(pixels[8:-8, 10:-10], 0.35) < 0.01
    assert np.allclose(np.abs(pixels[valid]), np.abs(raw[valid]), atol=1e-6)


def test_windows_of_a_burst_agree_and_only_annotated_samples_are_valid(measurement: Path) -> None:
    reader = burst_reader(measurement, 2)
    pixels, valid = reader.read(*WHOLE)
    expected = np.zeros((LINES, SAMPLES), bool)
    expected[5:-5, 3 : SAMPLES - 6] = True
    assert np.array_equal(valid, expected)
    assert (pixels[~valid] == 0).all()
    part, known = reader.read((100, 230), (40, 90))
    assert np.allclose(part, pixels[100:230, 40:90], rtol=1e-6, atol=1e-9)
    assert np.array_equal(known, valid[100:230, 40:90])
    with pytest.raises(DataError, match="exceeds"):
        reader.read((0, LINES + 1), (0, 10))


def test_the_rate_of_the_sweep_is_that_of_the_first_swath_of_iw(measurement: Path) -> None:
    """About 1.8 kHz/s, which a burst of 0.8 s crosses its line frequency with three times."""
    sweep = read_burst(measurement, "burst-02").ramp.sweep_hz_s(np.array([0.0, SAMPLES / 2]))
    assert sweep == pytest.approx([1760, 1760], rel=0.02)


def test_a_burst_is_placed_by_its_own_time(measurement: Path) -> None:
    """Ground in two bursts is at one place, although both name it by other lines."""
    headers = [burst_reader(measurement, number).header for number in (1, 2, 3)]
    assert {header.shape for header in headers} == {(LINES, SAMPLES)}
    for number, header in enumerate(headers):
        lines, cols = np.array([10.0, 200.0, 370.0]), np.array([5.0, 80.0, 150.0])
        points = header.placement.to_map(np.stack([cols + 0.5, lines + 0.5], axis=-1))
        lon, lat = place(lines + CYCLE * number, cols)
        to_map = pyproj.Transformer.from_crs("EPSG:4326", header.crs, always_xy=True)
        assert np.hypot(*(points.T - to_map.transform(lon, lat))).max() < 0.1
        assert header.spacing_m == pytest.approx((14.0, 4.0), rel=0.01)
    local = headers[1].local.at(20, 100)
    assert local["incidence_deg"] == pytest.approx(31.0)
    assert (local["burst"], local["deramped"]) == (2, True)


def test_real_grid_points_follow_time_and_not_stored_lines(test_data: Path) -> None:
    """210 points of an IW SLC whose bursts hold 1501 lines and begin 2.76 s, or 1343 lines, apart.

    Held-out miss of a cubic in column and line with the points' own heights, metres.
    """
    name = "s1a-iw1-slc-vv-20220104t170558-20220104t170623-041314-04e951-004.tiff"
    with rasterio.open(test_data / "sentinel1" / name) as file:
        points = file.gcps[0]
    lon, lat, height, col, row = np.array([(p.x, p.y, p.z, p.col, p.row) for p in points]).T
    to_map = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32632", always_xy=True)
    truth = np.stack(to_map.transform(lon, lat), axis=1)
    number = np.rint(row / 1501)

    def missed(line: np.ndarray) -> float:
        u, v = ((x - x.mean()) / np.ptp(x) * 2 for x in (col, line))
        powers = [u**i * v**j for i in range(4) for j in range(4 - i)]
        design = np.stack([*powers, height, height * u, height * v], axis=1)
        leverage = np.einsum("ij,ji->i", design, np.linalg.pinv(design))
        rest = truth - design @ np.linalg.lstsq(design, truth, rcond=None)[0]
        return float(np.sqrt(((rest / (1 - leverage)[:, None]) ** 2).sum(axis=1).mean()))

    by_cycle = {
        c: missed(np.where(number < 9, c * number, c * 8 + 1500)) for c in (1333, 1343, 1353)
    }
    assert by_cycle[1343] == pytest.approx(4.7, abs=0.1)
    assert min(by_cycle[1333], by_cycle[1353]) > 15
    assert missed(row) > 250


def test_every_burst_is_catalogued_with_its_time_and_the_whole_is_not(
    measurement: Path, tmp_path: Path
) -> None:
    report = catalog_directory(measurement.parent.parent.parent, tmp_path / "out")
    assert report.scenes == tuple(f"{NAME}-burst-{n:02d}" for n in range(1, BURSTS + 1))
    scenes = list(StacArchive(tmp_path / "out").search())
    times = [scene.properties["datetime"] for scene in scenes]
    assert times[0].startswith("2018-07-16T06:06:23.4")
    assert times == sorted(set(times))
    assert {scene.properties["sarhpc:flight_line"] for scene in scenes} == {"S1A-22822"}
    assert scenes[0].bbox[1] < scenes[1].bbox[3] < scenes[0].bbox[3]


def test_a_target_is_resampled_where_it_lies_and_keeps_its_energy(tmp_path: Path) -> None:
    """Band-limited resampling along azimuth, which the ramp would spread over all lines."""
    at = (CYCLE + 190, 84)
    write_bursts(tmp_path / "in", ground(target=at))
    catalog_directory(tmp_path / "in", tmp_path / "out")
    archive = StacArchive(tmp_path / "out")
    cfg = TileConfig(
        tile_px=32, pixel_m=16.0, min_valid=0.5, min_signal=0.0, max_saturated=1.0,
        split=SplitConfig(fractions=[1.0, 0.0, 0.0]),
    )  # fmt: skip
    found = []
    for number, inputs in enumerate(plan_scenes(archive.search(), cfg).shards):
        for sample in tile_shard(number, inputs, archive, cfg).samples:
            power = (decode_array(sample.members["sar16.npy"]) * sample.meta["master_scale"]) ** 2
            if sample.meta["burst"] == 2:
                found.append((sample.meta, power))
    meta, power = max(found, key=lambda each: each[1].max())
    assert (meta["resampling"], meta["deramped"]) == ("fft", True)
    row, col = np.unravel_index(power.argmax(), power.shape)
    a, b, c, d, e, f = meta["affine"]
    shown = np.array([a * (col + 0.5) + b * (row + 0.5) + c, d * (col + 0.5) + e * (row + 0.5) + f])
    to_map = pyproj.Transformer.from_crs("EPSG:4326", meta["crs"], always_xy=True)
    assert np.hypot(*(shown - to_map.transform(*place(*map(float, at))))) < 16.0
    near = power[max(row - 2, 0) : row + 3, max(col - 2, 0) : col + 3].sum()
    assert near > 0.9 * power.sum()


@pytest.mark.parametrize("element", ["azimuthFmRate", "orbit", "linesPerBurst", "lastValidSample"])
def test_bursts_that_are_not_as_specified_are_named(
    field: np.ndarray, tmp_path: Path, element: str
) -> None:
    path = write_bursts(tmp_path, field, broken=element)
    with pytest.raises(DataError, match="do not follow the specification"):
        burst_reader(path, 1)
    with pytest.raises(DataError, match="has no burst-04"):
        burst_reader(path, 4)


def test_other_files_have_no_bursts(tmp_path: Path) -> None:
    assert burst_layers(tmp_path / "measurement" / "a.tiff") == ()
    assert np.abs(ramp()) == pytest.approx(1)
