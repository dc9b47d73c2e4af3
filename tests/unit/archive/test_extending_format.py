"""The example of a file format in the extending guide, installed as pip installs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from archive_files import write_tif
from guide_examples import code_blocks, install_plugin

from hpc.errors import ConfigError, DataError
from sarhpc.archive.catalog_builder import catalog_directory
from sarhpc.archive.formats import readers
from sarhpc.archive.formats.readers import find_format
from sarhpc.archive.stac_catalog import StacArchive
from sarhpc.shards.images import decode_array
from sarhpc.shards.radiometry import master_amplitude
from sarhpc.tiling.config import TileConfig
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard

TILE_PX = 64

Install = Callable[[str, str], None]


def example() -> str:
    [block] = code_blocks("A file format reader")
    return block


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a module with an entry point."""

    def install(source: str, target: str) -> None:
        entry = f"[sarhpc.formats]\nnumpy-sar = {target}\n"
        install_plugin(monkeypatch, tmp_path / "site-packages", "numpy_sar", source, entry)
        readers.known_formats.cache_clear()

    yield install
    readers.known_formats.cache_clear()
    sys.modules.pop("numpy_sar", None)


def write_image(folder: Path, pixels: np.ndarray) -> None:
    folder.mkdir()
    np.save(folder / "field.npy", pixels)
    known = {
        "time": "2021-06-30T10:00:00Z",
        "band": "X",
        "crs": "EPSG:32631",
        "spacing_m": 0.5,
        "upper_left": [600_000.0, 5_700_000.0],
        "looks": 1.0,
    }
    (folder / "field.json").write_text(json.dumps(known))


def test_the_format_of_the_guide_is_catalogued_and_tiled(tmp_path: Path, install: Install) -> None:
    install(example(), "numpy_sar:FORMAT")
    rng = np.random.default_rng(7)
    pixels = rng.rayleigh(0.3, (2 * TILE_PX, 2 * TILE_PX)).astype(np.float32)
    write_image(tmp_path / "data", pixels)
    report = catalog_directory(tmp_path / "data", tmp_path / "catalogue")
    assert report.scenes == ("field",)
    assert report.skipped == ()
    archive = StacArchive(report.catalogue)
    (scene,) = archive.search(band="X")
    assert scene.datetime == "2021-06-30T10:00:00Z"
    assert scene.properties["proj:code"] == "EPSG:32631"
    cfg = TileConfig(tile_px=TILE_PX, pixel_m=None)
    cfg.split.fractions = [1.0, 0.0, 0.0]
    plan = plan_scenes(archive.search(), cfg)
    assert plan.counts["tiles"] == 4
    (inputs,) = plan.shards
    samples = list(tile_shard(0, inputs, archive, cfg).samples)
    corners = [(0, 0), (0, TILE_PX), (TILE_PX, 0), (TILE_PX, TILE_PX)]
    assert len(samples) == len(corners)
    for sample, (row, col) in zip(samples, corners, strict=True):
        amplitude = master_amplitude(decode_array(sample.members["sar16.npy"]), sample.meta)
        expected = pixels[row : row + TILE_PX, col : col + TILE_PX]
        np.testing.assert_allclose(amplitude, expected, atol=1e-4)


def test_a_damaged_image_is_listed_with_the_reason(tmp_path: Path, install: Install) -> None:
    install(example(), "numpy_sar:FORMAT")
    write_image(tmp_path / "data", np.ones((8, 8), np.float32))
    (tmp_path / "data" / "field.json").write_text("{")
    with pytest.raises(DataError, match=r"field\.npy has no readable sidecar"):
        catalog_directory(tmp_path / "data", tmp_path / "catalogue")


def test_without_the_package_the_suffix_is_unknown(tmp_path: Path) -> None:
    write_image(tmp_path / "data", np.ones((8, 8), np.float32))
    with pytest.raises(DataError, match=r"not a raster that is read \(\.npy\)"):
        catalog_directory(tmp_path / "data", tmp_path / "catalogue")


@pytest.mark.parametrize(
    ("target", "extra", "reason"),
    [
        ("no_such_module:FORMAT", "", "does not load"),
        ("numpy_sar:NumpyReader", "", "not a .*Format"),
        ("numpy_sar:FORMAT", "raise ValueError('no licence')", "does not load: no licence"),
    ],
)
def test_a_plug_in_that_is_no_format_is_named(
    install: Install, target: str, extra: str, reason: str
) -> None:
    install(f"{example()}\n{extra}\n", target)
    with pytest.raises(ConfigError, match=f"'numpy-sar'.*{reason}"):
        readers.known_formats()


SEVERAL_IMAGES = """
import dataclasses

from sarhpc.archive.formats.format import Layer


def of_layer(path, layer):
    if layer == "scan-2":
        raise DataError("scan-2 was interrupted")
    return properties(path, layer) | {"sarhpc:layer": layer}


FORMAT = dataclasses.replace(
    FORMAT,
    suffixes=(".npy", ".tif"),
    recognises=lambda path, quantity: path.stem == "field",
    layers=lambda path: [Layer(f"scan-{n}", f"S{n}") for n in (1, 2, 3)],
    properties=of_layer,
    media_type="application/x-numpy",
)
"""


def test_layers_become_scenes_and_files_that_are_not_recognised_keep_their_format(
    tmp_path: Path, install: Install
) -> None:
    install(example() + SEVERAL_IMAGES, "numpy_sar:FORMAT")
    pixels = np.ones((8, 8), np.float32)
    write_image(tmp_path / "data", pixels)
    write_tif(tmp_path / "data" / "sar.tif", pixels)
    declared = {"files": {"sar.tif": {"range_direction": "+row"}}}
    report = catalog_directory(tmp_path / "data", tmp_path / "catalogue", declarations=declared)
    assert report.scenes == ("field-S1", "field-S3", "sar")
    assert [item.reason for item in report.skipped] == ["scan-2: scan-2 was interrupted"]
    item = json.loads((tmp_path / "catalogue" / "field-S3" / "field-S3.json").read_text())
    assert item["properties"]["sarhpc:layer"] == "scan-3"
    assert item["assets"]["sar"]["type"] == "application/x-numpy"
    # A plug-in is asked first.
    formats = [find_format(tmp_path / name) for name in ("field.npy", "field.tif", "sar.tif")]
    names = [form.name for form in formats if form is not None]
    assert names == ["NumPy SAR", "NumPy SAR", "GeoTIFF"]
