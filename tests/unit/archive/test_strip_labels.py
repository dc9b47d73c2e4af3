"""The 204 real SpaceNet 6 strips, half of them seen from the north and half from the south."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from affine import Affine
from archive_files import write_tif

from sarhpc.archive.catalog_builder import catalog_directory
from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.stac_catalog import StacArchive
from sarhpc.tiling.grid import scene_frame
from sarhpc.tiling.orientation import determinant

FROM_NORTH, FROM_SOUTH = "0", "1"
SIDES = {FROM_NORTH: "+row", FROM_SOUTH: "-row"}
"""In a north-up image rows grow southward, so range does when the sensor is in the north."""


@pytest.fixture(scope="module")
def labels(test_data: Path) -> dict[str, str]:
    """Strip -> side it was seen from, as published with the data."""
    path = test_data / "spacenet6_orientations" / "SAR_orientations.txt"
    return dict(line.split() for line in path.read_text().splitlines())


@pytest.mark.slow
def test_each_strip_is_turned_so_that_near_range_is_on_the_left(
    labels: dict[str, str], tmp_path: Path
) -> None:
    """Amplitude falls with range in every file, as its label says; in the canonical frame too."""
    assert len(labels) == 204
    files = {}
    ramp = np.tile(np.linspace(1.0, 0.2, 12, dtype=np.float32)[:, None], (1, 10))
    for number, (strip, side) in enumerate(sorted(labels.items())):
        name = f"SN6_Train_AOI_11_Rotterdam_SAR-Intensity_{strip}_tile_1.tif"
        stored = ramp if side == FROM_NORTH else ramp[::-1]
        place = Affine(0.5, 0, 590_000 + 100 * number, 0, -0.5, 5_750_000)
        write_tif(tmp_path / name, stored, place)
        files[f"*_{strip}_*.tif"] = {"range_direction": SIDES[side]}
    declared = {"defaults": {"calibrated": True, "quantity": "amplitude"}, "files": files}
    (tmp_path / "sarhpc.yaml").write_text(yaml.safe_dump(declared))
    report = catalog_directory(tmp_path, tmp_path / "catalogue")
    assert len(report.scenes) == 204
    turned = {}
    for scene in StacArchive(tmp_path / "catalogue").search():
        [strip] = [strip for strip in labels if f"_{strip}_" in scene.id]
        reader = open_sar(scene)
        frame = scene_frame(reader.header, pixel_m=None)
        pixels, _ = reader.read((0, 12), (0, 10))
        reader.close()
        canonical = frame.orientation.apply(np.abs(pixels))
        assert canonical.shape == (10, 12)
        assert (np.diff(canonical.mean(axis=0)) < 0).all(), strip
        assert determinant(reader.header.affine) < 0, "turned, never mirrored"
        turned[labels[strip]] = frame.orientation
    north, south = turned[FROM_NORTH], turned[FROM_SOUTH]
    image = np.arange(120).reshape(12, 10)
    assert np.array_equal(north.apply(image), south.apply(image[::-1, ::-1])), "180 degrees apart"
