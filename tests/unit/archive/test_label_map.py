"""Label maps in the frame of a tile."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer

from hpc.errors import DataError
from sarhpc.archive.ancillary.label_map import read_label

AFFINE = (0.5, 0.0, 700_000.0, 0.0, -0.5, 6_250_000.0)


def write_label(path, codes, affine=AFFINE, crs="EPSG:2154", **profile):
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=codes.shape[1],
        height=codes.shape[0],
        count=1,
        dtype=codes.dtype,
        crs=crs,
        transform=Affine(*affine),
        **profile,
    ) as dataset:
        dataset.write(codes, 1)
    return path


@pytest.fixture
def codes():
    return np.random.default_rng(0).integers(1, 9, (40, 60)).astype(np.uint8)


def test_the_map_comes_back_whole_on_its_own_grid(tmp_path, codes):
    path = write_label(tmp_path / "label.tif", codes)
    label, known = read_label(path, AFFINE, "EPSG:2154", codes.shape)
    np.testing.assert_array_equal(label, codes)
    assert known.all()


def test_a_turned_and_shifted_tile_sees_the_turned_map(tmp_path, codes):
    path = write_label(tmp_path / "label.tif", codes)
    # Half a turn around the pixel corner (row 30, col 50).
    turned = (-0.5, 0.0, 700_025.0, 0.0, 0.5, 6_249_985.0)
    label, _ = read_label(path, turned, "EPSG:2154", (20, 30))
    np.testing.assert_array_equal(label, codes[10:30, 20:50][::-1, ::-1])


def test_finer_tiles_repeat_codes_and_never_mix_them(tmp_path, codes):
    path = write_label(tmp_path / "label.tif", codes)
    fine = (0.25, 0.0, 700_000.0, 0.0, -0.25, 6_250_000.0)
    label, _ = read_label(path, fine, "EPSG:2154", (80, 120))
    np.testing.assert_array_equal(label, np.kron(codes, np.ones((2, 2), np.uint8)))


def test_what_lies_outside_or_carries_no_label_is_unknown(tmp_path, codes):
    codes[0, 0], codes[0, 1] = 0, 99
    path = write_label(tmp_path / "label.tif", codes, nodata=99)
    wide = (0.5, 0.0, 699_995.0, 0.0, -0.5, 6_250_005.0)
    label, known = read_label(path, wide, "EPSG:2154", (60, 80))
    expected = np.zeros((60, 80), bool)
    expected[10:50, 10:70] = True
    expected[10, 10:12] = False
    np.testing.assert_array_equal(known, expected)
    assert not label[~known].any()


def test_a_map_in_another_projection_is_followed(tmp_path):
    codes = np.full((400, 400), 3, np.uint8)
    codes[200:, 200:] = 7
    path = write_label(tmp_path / "label.tif", codes)
    to_utm = Transformer.from_crs("EPSG:2154", "EPSG:32631", always_xy=True)
    x, y = to_utm.transform(700_100, 6_249_900)
    label, known = read_label(path, (0.5, 0, x - 5, 0, -0.5, y + 5), "EPSG:32631", (20, 20))
    expected = np.full((20, 20), 3)
    expected[10:, 10:] = 7
    assert known.all()
    np.testing.assert_array_equal(label, expected)


def test_a_local_frame_needs_a_local_map(tmp_path, codes):
    local = write_label(tmp_path / "local.tif", codes, crs=None)
    label, _ = read_label(local, AFFINE, None, codes.shape)
    np.testing.assert_array_equal(label, codes)
    with pytest.raises(DataError, match="not a label map of this scene"):
        read_label(local, AFFINE, "EPSG:2154", codes.shape)


def test_a_file_that_is_no_label_map_is_named(tmp_path, codes):
    path = write_label(tmp_path / "height.tif", codes.astype(np.float32))
    with pytest.raises(DataError, match=r"height\.tif is not a label map"):
        read_label(path, AFFINE, "EPSG:2154", codes.shape)
    with pytest.raises(DataError, match=r"gone\.tif"):
        read_label(tmp_path / "gone.tif", AFFINE, "EPSG:2154", codes.shape)
