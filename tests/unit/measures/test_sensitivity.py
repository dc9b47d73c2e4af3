"""The sensitivity table: each defect is seen by the measures that should, and by no others.

The matrix of what is expected was written before anything was measured. `pytest -s` prints what is.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from sarhpc.archive.procedural.config import ProceduralConfig
from sarhpc.archive.procedural.simulate import scene_ids, simulate_scene
from sarhpc.evaluation.known_sensitivity import POWERS
from sarhpc.evaluation.sensitivity import NONE, Sensitivity, sensitivity
from sarhpc.measures.distances import DISTANCES

LEVELS = {"E3_jsd", "E3_kl", "E3_hellinger", "E3_w1"}

SEEN: Mapping[str, set[str]] = {
    NONE: set(),
    # Levels of scenes spread by more than ten decibels: 40 tiles show no gain of 1 dB.
    "gain of 1 dB": set(),
    # Looks, levels, spectrum and texture are even in both directions; E8 sees it.
    "range flip": set(),
    "azimuth flip": set(),
    "rotation by 90 degrees": set(),
    "blur of 0.6 px": {"E1_enl", "E2_log_cumulants", "E4_acf", "E5_lsd", "E6_texture"},
    "8 x 8 shuffle": {"E4_acf", "E5_lsd", "E6_texture"},
    "white re-speckle": {"E4_acf", "E5_lsd", "E6_texture"},
    "grid lines of 0.5 dB": {"E5_lines"},
    "targets 10 dB lower": {"E3_bright"},
    "one mean level": {"E3_level_spread"},
}
"""Defect -> distances that must see it."""

EITHER: Mapping[str, set[str]] = {
    "gain of 1 dB": LEVELS,
    # Band and shadows differ between the axes, by how much depends on sensor and scene.
    "rotation by 90 degrees": {"E4_acf", "E5_lsd", "E6_texture"},
    # Speckle that is averaged has other levels, no dark pixels, and no lines.
    "blur of 0.6 px": {*LEVELS, "E3_bright", "E5_lines"},
    # The local mean stays, windows across blocks do not; the blocks are those of the lines.
    "8 x 8 shuffle": {"E1_enl", "E5_lines"},
    # Targets become speckle on a spread mean; averaging before it narrows levels.
    "white re-speckle": {*LEVELS, "E1_enl", "E2_log_cumulants", "E3_bright", "E5_lines"},
    "grid lines of 0.5 dB": {"E5_lsd"},
    # What is bright is in the tails of levels and in windows with targets.
    "targets 10 dB lower": {"E2_log_cumulants", *LEVELS, "E5_lsd", "E6_texture", "E5_lines"},
    "one mean level": LEVELS,
}
"""Defect -> distances that may see it."""


def show(name: str, found: Sensitivity) -> None:
    print(f"\n{name}: {found.tiles} against {found.reference_tiles} tiles, {found.groups_drawn} "
          f"of {found.groups} groups, false alarms {found.false_alarms:.2f}")  # fmt: skip
    print("\n".join(found.lines()))


@pytest.mark.slow
def test_each_defect_of_procedural_tiles_lands_where_it_should_and_nowhere_else() -> None:
    cfg = ProceduralConfig(seed=11, scenes=100, scenes_per_line=1, size_px=128, optical=False)
    tiles = [np.abs(simulate_scene(cfg, name).sar) for name in scene_ids(cfg)]
    found = sensitivity(tiles, range(len(tiles)))
    show("procedural", found)
    assert set(found.seen) == set(SEEN)
    assert found.false_alarms <= 0.05
    for defect, powers in found.seen.items():
        assert powers == pytest.approx(POWERS[defect], abs=0.1), "the table on the page is older"
        for name in DISTANCES:
            if name in SEEN[defect]:
                assert powers[name] >= 0.8, (defect, name)
            elif name not in EITHER.get(defect, set()):
                assert powers[name] <= 0.05, (defect, name)


@pytest.mark.long
def test_defects_of_mstar_chips_land_where_they_should(test_data: Path) -> None:
    """Groups are the folders of the chips, one for each vehicle. Chips have nearly one level."""
    with tarfile.open(test_data / "mstar_soc" / "train.tar") as chips:
        names = sorted(n for n in chips.getnames() if n.lower().endswith((".jpg", ".jpeg")))
        names = names[::8]
        files = [chips.extractfile(name) for name in names]
        codes = [np.asarray(Image.open(io.BytesIO(f.read())).convert("L")) for f in files if f]
    tiles = [np.maximum(code[:128, :128].astype(float), 0.5) / 255 for code in codes]
    found = sensitivity(tiles, [Path(name).parent.name for name in names])
    show("MSTAR", found)
    assert found.false_alarms <= 0.05
    for defect in ("blur of 0.6 px", "8 x 8 shuffle", "white re-speckle"):
        assert min(found.seen[defect][name] for name in ("E4_acf", "E5_lsd")) >= 0.8, defect
    for defect in ("range flip", "azimuth flip"):
        assert max(found.seen[defect].values()) <= 0.05, defect


@pytest.mark.long
def test_defects_of_blocks_of_one_scene_are_reported(test_data: Path) -> None:
    """Blocks of one scene are no groups that are independent of each other: no bar is held."""
    gotcha = test_data / "gotcha_xband/derived_gotcha_az1-4_HH_slc_ground_0p2m.tif"
    files = {"GOTCHA": gotcha} | {
        f"SpaceNet-6 {p.upper()}": test_data / "spacenet6_solaris" / f"sar_{p}.tif"
        for p in ("hh", "hv", "vh", "vv")
    }
    for name, file in files.items():
        with rasterio.open(file) as image:
            A = np.abs(image.read(1)).astype(float)
        A /= np.sqrt(np.square(A).mean())
        side = 32 if name.startswith("Space") else 64
        corners = [
            (r, c)
            for r in range(0, A.shape[0] - side + 1, side)
            for c in range(0, A.shape[1] - side + 1, side)
        ]
        tiles = [A[r : r + side, c : c + side] for r, c in corners]
        show(f"{name}, {side} px", sensitivity(tiles, range(len(tiles)), len(tiles) // 3))
