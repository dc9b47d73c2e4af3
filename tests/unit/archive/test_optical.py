from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from archive_files import UTM, scene_of, write_tif
from pyproj import Transformer
from rasterio.warp import Resampling, reproject
from scipy.ndimage import gaussian_filter

from hpc.errors import DataError
from sarhpc.archive.ancillary.optical_resampling import read_optical
from sarhpc.archive.formats.readers import open_sar

ORIGIN = Affine(1, 0, 600_000, 0, -1, 5_700_000)
FRAMES = {
    "north-up": Affine(1, 0, 0, 0, 1, 0),
    "rotated by 180": Affine(-1, 0, 64, 0, -1, 48),
    "mirrored": Affine(-1, 0, 64, 0, 1, 0),
    "transposed": Affine(0, 1, 0, 1, 0, 0),
}


def colours(height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (3, height, width), np.uint8)


def six(affine: Affine) -> tuple[float, float, float, float, float, float]:
    return tuple(affine)[:6]


@pytest.mark.parametrize("name", FRAMES)
def test_an_exact_frame_gets_the_exact_pixels(tmp_path: Path, name: str) -> None:
    image = colours()
    path = write_tif(tmp_path / "rgb.tif", image)
    shape = (64, 48) if name == "transposed" else (48, 64)
    rgb, covered = read_optical(path, six(ORIGIN @ FRAMES[name]), UTM, shape)
    expected = {
        "north-up": image,
        "rotated by 180": image[:, ::-1, ::-1],
        "mirrored": image[:, :, ::-1],
        "transposed": image.transpose(0, 2, 1),
    }[name]
    assert rgb.dtype == np.uint8
    assert np.array_equal(rgb, expected.transpose(1, 2, 0))
    assert covered.all()


def test_a_coarser_tile_gets_area_means_and_no_moire(tmp_path: Path) -> None:
    """A two-pixel checkerboard is grey when seen from four times as far."""
    board = np.where(np.indices((64, 64)).sum(0) % 2, 255, 1).astype(np.uint8)
    path = write_tif(tmp_path / "rgb.tif", np.stack([board] * 3))
    rgb, covered = read_optical(path, six(ORIGIN @ Affine.scale(4)), UTM, (16, 16))
    assert covered.all()
    assert (np.abs(rgb.astype(int) - 128) <= 1).all()


def test_neighbouring_tiles_show_one_picture(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "rgb.tif", colours(200, 200))
    frame = ORIGIN @ Affine.rotation(7) @ Affine.scale(2.3)
    both, _ = read_optical(path, six(frame), UTM, (60, 60))
    right, _ = read_optical(path, six(frame @ Affine.translation(30, 0)), UTM, (60, 30))
    assert np.abs(both[:, 30:].astype(int) - right).max() <= 1


def test_another_crs_agrees_with_gdals_area_average(test_data: Path) -> None:
    path = test_data / "optical_vhr" / "pix4d_alpha_nodata.tif"
    with rasterio.open(path) as dataset:
        bounds, source = dataset.bounds, dataset.read()
        profile = dataset.profile
    centre = (bounds.left + bounds.right) / 2, (bounds.top + bounds.bottom) / 2
    x, y = Transformer.from_crs(32750, 32749, always_xy=True).transform(*centre)
    frame = (
        Affine.translation(x, y)
        @ Affine.rotation(30)
        @ Affine.scale(0.7, -0.7)
        @ Affine.translation(-128, -128)
    )
    rgb, covered = read_optical(path, six(frame), "EPSG:32749", (256, 256))
    judge = np.zeros((4, 256, 256), np.uint8)
    reproject(
        source,
        judge,
        src_transform=profile["transform"],
        src_crs=profile["crs"],
        dst_transform=frame,
        dst_crs="EPSG:32749",
        resampling=Resampling.average,
    )
    inner = covered & (judge[3] == 255)
    ours, theirs = rgb[inner].astype(float), judge[:3, inner].T.astype(float)
    assert inner.mean() > 0.5
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.95
    assert abs((ours - theirs).mean()) < 0.3
    # Alpha is the coverage, to the half pixel at its edge.
    assert (covered != (judge[3] > 127)).mean() < 0.01


@pytest.fixture(scope="module")
def harbour(test_data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Rank of the local SAR level, four channels together, and its affine's optical image."""
    folder = test_data / "spacenet6_solaris"
    power = 0
    for channel in ("hh", "hv", "vh", "vv"):
        reader = open_sar(scene_of(folder / f"sar_{channel}.tif"))
        intensity = np.abs(reader.read((0, 200), (0, 200))[0]) ** 2
        power = power + intensity / np.median(intensity)
    rgb, covered = read_optical(
        folder / "rgb_unmasked.tif", reader.header.affine, reader.header.crs, (200, 200)
    )
    assert covered.all()
    level = gaussian_filter(np.log(power), 2)
    return np.argsort(np.argsort(level.ravel())).reshape(200, 200) / 40_000, rgb.astype(float)


def explained(level: np.ndarray, rgb: np.ndarray) -> float:
    """Share of the SAR level's variance that colour and local contrast explain, 0 to 1."""
    brightness = rgb.sum(axis=2)
    contrast = gaussian_filter(brightness**2, 2) - gaussian_filter(brightness, 2) ** 2
    features = [gaussian_filter(rgb[..., band], 1) for band in range(3)]
    features.append(np.log(np.sqrt(np.maximum(contrast, 0)) + 1))
    columns = [*features, *(f * f for f in features), np.ones_like(level)]
    design = np.stack([column[15:-15, 15:-15].ravel() for column in columns], axis=1)
    target = level[15:-15, 15:-15].ravel()
    residual = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    return float(1 - residual.var() / target.var())


def test_the_mirrored_sar_scene_lies_on_its_optical_image(
    harbour: tuple[np.ndarray, np.ndarray],
) -> None:
    """Any other handedness or turn of the same pixels explains less than half as much."""
    level, rgb = harbour
    right = explained(level, rgb)
    others = [
        explained(turned, rgb)
        for turned in (level[::-1], level[:, ::-1], level[::-1, ::-1], level.T, level.T[::-1])
    ]
    assert right > 0.35
    assert max(others) < right / 2


def test_the_sar_scene_lies_where_its_optical_image_does(
    harbour: tuple[np.ndarray, np.ndarray],
) -> None:
    """The best shift stays within layover, 6 pixels of 2.5 m, towards the sensor in the south.

    Tanks and cranes lean towards the sensor, so the peak is not at zero: it is to the south,
    which is what makes `+col` (range grows to the north) this scene's direction.
    """
    level, rgb = harbour
    shifts = range(-12, 13, 2)
    fits = {
        (row, col): explained(np.roll(level, (-row, -col), (0, 1)), rgb)
        for row in shifts
        for col in shifts
    }
    row, col = max(fits, key=fits.__getitem__)
    assert abs(row) <= 2
    assert -6 <= col <= 0
    assert fits[0, 0] > max(fits[0, 12], fits[0, -12], fits[12, 0], fits[-12, 0]) + 0.01


def test_coverage_ends_where_the_image_does(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "rgb.tif", colours())
    rgb, covered = read_optical(path, six(ORIGIN @ Affine.translation(-10, -8)), UTM, (40, 40))
    assert covered[8:, 10:].all()
    assert covered.sum() == 32 * 30
    assert (rgb[~covered] == 0).all()
    far, none = read_optical(path, six(ORIGIN @ Affine.translation(5000, 0)), UTM, (8, 8))
    assert not none.any()
    assert not far.any()


def test_nodata_is_not_covered_and_dark_ground_is(tmp_path: Path) -> None:
    image = colours()
    image[:, 20:24, 20:24] = 0
    tagged = write_tif(tmp_path / "tagged.tif", image, nodata=0)
    plain = write_tif(tmp_path / "plain.tif", image)
    _, covered = read_optical(tagged, six(ORIGIN), UTM, (48, 64))
    assert (~covered).sum() == 16
    assert read_optical(plain, six(ORIGIN), UTM, (48, 64))[1].all()


def test_a_black_collar_without_nodata_tag_is_found(test_data: Path) -> None:
    path = test_data / "spacenet6_solaris" / "ms2.tif"
    with rasterio.open(path) as dataset:
        empty = (dataset.read([1, 2, 3]) == 0).all(axis=0)
        frame = dataset.transform
    _, covered = read_optical(path, six(frame), UTM, (300, 300))
    assert empty.mean() == pytest.approx(0.32, abs=0.01)
    assert np.array_equal(covered, ~empty)
    _, part = read_optical(path, six(frame @ Affine.translation(100, 50)), UTM, (90, 120))
    assert np.array_equal(part, covered[50:140, 100:220])


def test_sixteen_bits_are_stretched_alike_in_every_tile(test_data: Path) -> None:
    path = test_data / "optical_vhr" / "sample_geotiff.tif"
    with rasterio.open(path) as dataset:
        crs, frame = dataset.crs.to_string(), dataset.transform
    whole, covered = read_optical(path, six(frame), crs, (900, 900))
    part, _ = read_optical(path, six(frame @ Affine.translation(300, 400)), crs, (64, 64))
    assert covered.mean() > 0.99
    assert np.array_equal(part, whole[400:464, 300:364])
    assert np.array_equal(whole[..., 0], whole[..., 2])
    assert whole.std() > 30


def test_a_local_frame_is_covered_only_by_an_image_that_declares_it(tmp_path: Path) -> None:
    frame = Affine(0.5, 0, -16, 0, -0.5, 12)
    silent = write_tif(tmp_path / "silent.tif", colours(), frame, crs=None)
    telling = write_tif(
        tmp_path / "tells.tif", colours(), frame, crs=None, tags={"SARHPC_FRAME": "scene"}
    )
    mapped = write_tif(tmp_path / "mapped.tif", colours(), frame)
    shape = (48, 64)
    assert not read_optical(silent, six(frame), None, shape)[1].any()
    assert not read_optical(mapped, six(frame), None, shape)[1].any()
    assert not read_optical(telling, six(frame), UTM, shape)[1].any()
    assert read_optical(telling, six(frame), None, shape)[1].all()
    assert read_optical(silent, six(frame), None, shape, same_frame=True)[1].all()


def test_an_image_that_cannot_be_read_is_named(test_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_optical(tmp_path / "gone.tif", six(ORIGIN), UTM, (4, 4))
    (tmp_path / "bad.tif").write_bytes(b"II*\0junk")
    with pytest.raises(DataError, match=r"bad\.tif"):
        read_optical(tmp_path / "bad.tif", six(ORIGIN), UTM, (4, 4))
    with pytest.raises(DataError, match="GCPs"):
        read_optical(test_data / "sentinel1" / "cog_gcps.tif", six(ORIGIN), UTM, (4, 4))
