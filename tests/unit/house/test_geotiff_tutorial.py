"""The catalogue of the tutorial, typed as its page prints it: a refusal with a draft, then scenes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.stac_catalog import StacArchive

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[3]
PAGE = REPOSITORY / "docs" / "tutorials" / "geotiffs.md"


def blocks() -> list[str]:
    """The commands of the page that make the catalogue."""
    found: list[str] = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [block for block in found if "sarhpc catalog" in block]


def typed(block: str, data: Path) -> subprocess.CompletedProcess[str]:
    launcher = data / "bin" / "sarhpc"
    launcher.parent.mkdir(exist_ok=True)
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -m sarhpc.cli "$@"\n')
    launcher.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{launcher.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
    }
    return subprocess.run(
        ["bash", "-e", "-c", block.replace("/data/", f"{data}/")],
        env=environment, cwd=data, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_commands_of_the_tutorial_end_in_a_catalogue(tmp_path: Path) -> None:
    folder = tmp_path / "sar"
    folder.mkdir()
    for number in range(2):
        where = Affine(0.35, 0, 600_000 + 100 * number, 0, -0.35, 5_700_000)
        grid = {"driver": "GTiff", "height": 64, "width": 64, "crs": "EPSG:2154"}
        stem = folder / f"proc7-l0000-s00{number}"
        with rasterio.open(f"{stem}.tif", "w", count=1, dtype="complex64", transform=where,
                           **grid) as file:  # fmt: skip
            file.write(np.ones((64, 64), np.complex64), 1)
        with rasterio.open(f"{stem}_rgb.tif", "w", count=3, dtype="uint8", transform=where,
                           photometric="RGB", **grid) as file:  # fmt: skip
            file.write(np.full((3, 64, 64), 9, np.uint8))
    first, second = blocks()
    refused = typed(first, tmp_path)
    assert refused.returncode == 1
    assert f"fill in {tmp_path}/catalogue/sarhpc.yaml, and repeat the command" in refused.stderr
    made = typed(second, tmp_path)
    assert made.returncode == 0, made.stderr
    assert "2 scenes, 0 files left out" in made.stdout
    scenes = list(StacArchive(tmp_path / "catalogue").search(band="X"))
    assert len(scenes) == 2
    for scene in scenes:
        header = open_sar(scene).header
        assert (header.range_direction, header.calibration) == ("+col", "sigma0")
        assert scene.assets["optical"].name == f"{scene.id}_rgb.tif"
