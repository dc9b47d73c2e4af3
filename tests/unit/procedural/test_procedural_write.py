"""Files of a scene: georeference, assets, items, and equal bytes for equal arguments."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from hpc.errors import TransientError
from sarhpc.archive.procedural.config import ProceduralConfig
from sarhpc.archive.procedural.flight import acquisition, scene_ids
from sarhpc.archive.procedural.simulate import simulate_scene
from sarhpc.archive.procedural.write import write_scene
from sarhpc.archive.stac_catalog import StacArchive, write_catalogue

pytestmark = pytest.mark.slow

CFG = ProceduralConfig(seed=8, scenes=4, size_px=272, scenes_per_line=2)
ROLES = {"sar", "optical", "label", "height", "shadow", "layover", "incidence"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archive")
    write_catalogue([write_scene(CFG, name, root) for name in scene_ids(CFG)], root)
    return root


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_equal_arguments_give_equal_bytes_in_any_order(archive: Path, tmp_path: Path) -> None:
    items = [write_scene(CFG, name, tmp_path) for name in reversed(scene_ids(CFG))]
    write_catalogue(items, tmp_path)
    assert digests(tmp_path) == digests(archive)


def test_catalogue_finds_every_scene_with_its_assets(archive: Path) -> None:
    scenes = list(StacArchive(archive).search(band="X"))
    assert [scene.id for scene in scenes] == sorted(scene_ids(CFG))
    for scene in scenes:
        assert set(scene.assets) == ROLES
        assert all(path.is_file() for path in scene.assets.values())
        assert scene.incidence_deg == pytest.approx(45.0)


def test_item_says_what_the_image_is(archive: Path) -> None:
    name = scene_ids(CFG)[1]
    item = json.loads((archive / name / f"{name}.json").read_text())
    known = item["properties"]
    expected = {
        "platform": "falcon-20-sim",
        "sarhpc:procedural": True,
        "sarhpc:range_direction": "+col",
        "sarhpc:calibration": "sigma0",
        "sarhpc:scale": 1.0,
        "sar:frequency_band": "X",
        "sar:looks_equivalent_number": 1,
        "sar:observation_direction": "right",
        "proj:code": "EPSG:2154",
        "proj:shape": [272, 272],
    }
    assert {key: known[key] for key in expected} == expected
    assert known["sarhpc:flight_line"] == acquisition(CFG, name).line
    assert known["sar:resolution_range"] == pytest.approx(1.406 * 0.35, abs=0.002)
    assert sum(known["sarhpc:class_fractions"].values()) == pytest.approx(1.0, abs=1e-3)
    assert {"sar/v1.1.0", "view/v1.0.0", "projection/v2.0.0"} <= {
        "/".join(uri.split("/")[3:5]) for uri in item["stac_extensions"]
    }
    west, south, east, north = item["bbox"]
    assert -1 < west < east < 8
    assert 42 < south < north < 46


def test_files_hold_the_simulated_layers(archive: Path) -> None:
    name = scene_ids(CFG)[0]
    scene = simulate_scene(CFG, name)
    with rasterio.open(archive / name / "sar.tif") as file:
        assert file.dtypes == ("complex64",)
        assert np.array_equal(file.read(1), scene.sar)
        assert file.crs.to_epsg() == 2154
        affine = file.transform
    assert affine.b != 0
    assert affine.determinant < 0, "the image must not be mirrored"
    assert math.hypot(affine.a, affine.d) == pytest.approx(CFG.pixel_m)
    with rasterio.open(archive / name / "optical.tif") as file:
        assert file.transform == affine
        assert np.array_equal(np.moveaxis(file.read(), 0, -1), scene.optical)
    with rasterio.open(archive / name / "height.tif") as file:
        assert np.array_equal(file.read(), np.stack([scene.height, scene.terrain]))
    for role in ("label", "shadow", "layover"):
        with rasterio.open(archive / name / f"{role}.tif") as file:
            assert np.array_equal(file.read(1), getattr(scene, role).astype(np.uint8))


def test_several_looks_are_written_as_amplitude(tmp_path: Path) -> None:
    cfg = replace(CFG, looks=3, size_px=128, optical=False)
    item = write_scene(cfg, scene_ids(cfg)[0], tmp_path)
    known = json.loads(item.read_text())
    assert known["properties"]["sar:looks_equivalent_number"] == 3
    assert "optical" not in known["assets"]
    with rasterio.open(item.parent / "sar.tif") as file:
        assert file.dtypes == ("float32",)


def corners(cfg: ProceduralConfig, name: str) -> np.ndarray:
    a, b, c, d, e, f = acquisition(cfg, name).affine
    n = cfg.size_px
    return np.array(
        [(a * x + b * y + c, d * x + e * y + f) for x, y in ((0, 0), (n, 0), (n, n), (0, n))]
    )


def apart(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether a side of one of two convex quadrilaterals separates them."""
    for shape in (one, other):
        for p, q in zip(shape, np.roll(shape, -1, axis=0), strict=True):
            normal = np.array([q[1] - p[1], p[0] - q[0]])
            s, t = one @ normal, other @ normal
            if s.max() <= t.min() or t.max() <= s.min():
                return True
    return False


def test_footprints_do_not_overlap_and_lines_differ_in_heading() -> None:
    cfg = replace(CFG, scenes=40, scenes_per_line=5, size_px=512)
    names = scene_ids(cfg)
    shapes = [corners(cfg, name) for name in names]
    for i, one in enumerate(shapes):
        assert all(apart(one, other) for other in shapes[:i])
    headings = {acquisition(cfg, name).heading_deg for name in names}
    assert len(headings) == 8


def test_a_full_disk_leaves_no_item_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SARHPC_FAULT", "publish.before_fsync:3:enospc")
    monkeypatch.setattr("hpc.publish._passages", {})
    cfg = replace(CFG, size_px=64)
    with pytest.raises(TransientError, match="no space left"):
        write_scene(cfg, scene_ids(cfg)[0], tmp_path)
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert len(left) == 2
    assert not any(name.endswith((".json", ".tmp")) for name in left)
