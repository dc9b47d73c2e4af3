from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiling_peers
from bench_tiling import CFG, Contender, contenders, race, the_scene
from tiling_peers import NATIVE_M, PIXEL_M, TILE_PX, tile_corners, write_optical, write_speckle

from sarhpc.shards.reader import read_shard
from sarhpc.tiling.plan import plan_scenes

TOOL = Path(__file__).resolve().parents[3] / "tools" / "bench_tiling.py"
BOX = 16


def ways(folder: Path) -> dict[str, Contender]:
    """Every way over a scene of one tile."""
    scene, optical = folder / "scene.tif", folder / "optical.tif"
    write_speckle(scene, 1024)
    write_optical(optical, 1024)
    [inputs] = plan_scenes([the_scene(scene)], CFG).shards
    return contenders(scene, optical, inputs)


def boxes(power: np.ndarray) -> np.ndarray:
    """Mean intensity of boxes of BOX pixels a side."""
    side = TILE_PX // BOX
    return power.reshape(side, BOX, side, BOX).mean(axis=(1, 3))


@pytest.mark.slow
def test_every_way_cuts_the_same_ground(tmp_path: Path) -> None:
    found = ways(tmp_path)
    rates = race(found, tmp_path, 1)
    assert all(rate > 0 for rate in rates.values())
    cut = {name: list(way.powers(tmp_path / name.replace(" ", "_"))) for name, way in found.items()}
    [ours] = cut["sarhpc"]
    assert abs(10 * np.log10(ours.mean())) < 0.1
    for name, [power] in cut.items():
        alike = np.corrcoef(boxes(ours).ravel(), boxes(power).ravel())[0, 1]
        beside = np.corrcoef(boxes(ours)[1:].ravel(), boxes(power)[:-1].ravel())[0, 1]
        assert alike > 0.6, name
        assert abs(beside) < 0.3, name
    members = [set(s.members) for s in read_shard(tmp_path / "sarhpc,_optical" / "tiles.tar")]
    assert all("optic.png" in names for names in members)


def test_ways_of_gdal_are_left_out_where_its_programs_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tiling_peers.gdal_programs() is None
    assert not any(name.startswith("gdal") for name in ways(tmp_path))
    assert "left out" in capsys.readouterr().out


def test_peers_cut_the_tiles_that_fit_the_scene() -> None:
    assert len(tile_corners(8192)) == 81
    row, col = tile_corners(8192)[-1]
    assert (max(row, col) + TILE_PX) * PIXEL_M <= 8192 * NATIVE_M


@pytest.mark.slow
def test_the_benchmark_prints_a_row_for_each_way_and_the_efficiency_of_two_workers() -> None:
    words = ["--pixels", "1024", "--rounds", "1", "--scenes", "2"]
    done = subprocess.run(
        [sys.executable, TOOL, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "efficiency of two workers=" in done.stdout
    assert "read once, PIL lanczos" in done.stdout
