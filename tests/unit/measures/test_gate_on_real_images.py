"""The gate of single images on measured images; `pytest -s -m long` prints what it finds."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from planted_defects import CURVES, Tile, copies_found, defects
from scipy.stats import betabinom

from sarhpc.measures.defects import noisy
from sarhpc.measures.gate_limits import GateLimits, calibrate, rank
from sarhpc.measures.image_gate import ImageGate

pytestmark = pytest.mark.long


def chips(archive: Path) -> list[np.ndarray]:
    """Codes of all chips of an archive, middle 128 x 128 px."""
    with tarfile.open(archive) as tar:
        names = sorted(n for n in tar.getnames() if n.lower().endswith((".jpg", ".jpeg")))
        files = [tar.extractfile(name) for name in names]
        codes = [np.asarray(Image.open(io.BytesIO(f.read())).convert("L")) for f in files if f]
    corners = [tuple((side - 128) // 2 for side in code.shape) for code in codes]
    return [
        c[row : row + 128, col : col + 128] for c, (row, col) in zip(codes, corners, strict=True)
    ]


def coded(spoil: Callable[[Tile], Tile]) -> Callable[[Tile], Tile]:
    """A defect of amplitude as one of 8-bit codes; NaN stays what it is."""

    def spoiled(codes: Tile) -> Tile:
        A = spoil(np.maximum(codes, 0.5) / 255)
        return A if np.isnan(A).any() else np.clip(np.rint(255 * A), 0, 255).astype(np.uint8)

    return spoiled


def recalls(
    limits: GateLimits,
    tiles: list[Tile],
    wrap: Callable[[Callable[[Tile], Tile]], Callable[[Tile], Tile]],
) -> dict[str, float]:
    """Share of tiles quarantined by defect, of the acceptance and by strength."""
    rng = np.random.default_rng(5)
    found = {}
    for name, spoil in {**defects(rng), **CURVES}.items():
        of = tiles if name in defects(rng) else tiles[::8]
        spoiled = [ImageGate(limits).judge(wrap(spoil)(A)) for A in of]
        found[name] = float(np.mean([not verdict.accepted for verdict in spoiled]))
    found["exact copy"] = copies_found(limits, tiles, np.copy)
    found["copy, SNR 20 dB"] = copies_found(limits, tiles, wrap(lambda A: noisy(A, rng)))
    print("\n".join(f"{name}: {recall:.3f}" for name, recall in found.items()), flush=True)
    return found


def reasons(limits: GateLimits, tiles: list[Tile]) -> list[str]:
    """The reasons against tiles that are in order, of one corpus."""
    gate = ImageGate(limits)
    return [verdict.reasons[0].name for A in tiles if (verdict := gate.judge(A)).reasons]


def test_planted_defects_of_mstar_test_chips_are_quarantined(test_data: Path) -> None:
    """Limits from the chips at 17 degrees, of the same vehicles as those at 15."""
    folder = test_data / "mstar_soc"
    train, test = chips(folder / "train.tar"), chips(folder / "test.tar")
    limits = calibrate(train, 0.01)
    found = reasons(limits, test)
    print(f"\nMSTAR: {limits.to_json()}")
    print(f"false rejects {len(found)} of {len(test)}: "
          f"{ {name: found.count(name) for name in sorted(set(found))} }")  # fmt: skip
    beyond = limits.tests * (limits.tiles + 1 - rank(limits.tiles, limits.rate, limits.tests))
    most = betabinom(len(test), beyond, limits.tiles + 1 - beyond).ppf(0.999)
    read = recalls(limits, test, coded)
    assert len(found) <= most
    for name in (*defects(np.random.default_rng()), "exact copy", "copy, SNR 20 dB"):
        assert read[name] >= 0.95, name


def test_planted_defects_of_one_scene_are_reported(test_data: Path) -> None:
    """Blocks of one scene are not independent, and few: a rate of 10 %, and no bar is held."""
    files = {"GOTCHA": test_data / "gotcha_xband/derived_gotcha_az1-4_HH_slc_ground_0p2m.tif"}
    files |= {
        f"SpaceNet-6 {p.upper()}": test_data / "spacenet6_solaris" / f"sar_{p}.tif"
        for p in ("hh", "hv", "vh", "vv")
    }
    for name, file in files.items():
        with rasterio.open(file) as image:
            A = np.abs(image.read(1)).astype(float)
        A /= np.sqrt(np.square(A).mean())
        # Of SpaceNet-6, 200 px, the blocks overlap.
        step = 64 if name == "GOTCHA" else 15
        blocks = [
            A[r : r + 64, c : c + 64]
            for r in range(0, A.shape[0] - 63, step)
            for c in range(0, A.shape[1] - 63, step)
        ]
        try:
            limits = calibrate(blocks[::2], 0.2)
        except ValueError as error:
            print(f"\n{name}: {error}")
            continue
        found = reasons(limits, blocks[1::2])
        print(f"\n{name}: limits from {limits.tiles} blocks, rate 20 %; "
              f"rejects {len(found)} of {len(blocks[1::2])}: {sorted(set(found))}")  # fmt: skip
        recalls(limits, blocks[1::2], lambda spoil: spoil)
