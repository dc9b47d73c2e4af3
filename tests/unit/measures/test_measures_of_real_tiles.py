"""E3, E5, E6 and E13 on real data; `pytest -s` prints what they read."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from sarhpc.measures.defects import blurred, gridded, respeckled, shuffled
from sarhpc.measures.levels import PERCENTILES, clipped_fraction, clipped_power, measure_levels
from sarhpc.measures.seams import Join, measure_seams
from sarhpc.measures.spectrum import grid_lines_db, measure_spectrum
from sarhpc.measures.texture import DIRECTIONS, FEATURES, measure_texture, overall, texture_distance

GOTCHA = "gotcha_xband/derived_gotcha_az1-4_HH_slc_ground_0p2m.tif"


def amplitude(path: Path) -> np.ndarray:
    with rasterio.open(path) as image:
        return np.abs(image.read(1))


@pytest.fixture(scope="module")
def gotcha(test_data: Path) -> np.ndarray:
    return amplitude(test_data / GOTCHA)


@pytest.fixture(scope="module")
def spacenet6(test_data: Path) -> dict[str, np.ndarray]:
    folder = test_data / "spacenet6_solaris"
    return {p: amplitude(folder / f"sar_{p}.tif") for p in ("hh", "hv", "vh", "vv")}


@pytest.fixture(scope="module")
def mstar(test_data: Path) -> list[np.ndarray]:
    """Every twentieth chip of the training set; code 0 counts as half a code."""
    with tarfile.open(test_data / "mstar_soc" / "train.tar") as chips:
        names = sorted(n for n in chips.getnames() if n.lower().endswith((".jpg", ".jpeg")))
        files = [chips.extractfile(name) for name in names[::20]]
        codes = [np.asarray(Image.open(io.BytesIO(f.read())).convert("L")) for f in files if f]
    return [np.maximum(code.astype(float), 0.5) / 255 for code in codes]


def cut(image: np.ndarray, size: int) -> list[np.ndarray]:
    rows, columns = (range(0, side - size + 1, size) for side in image.shape)
    return [image[r : r + size, c : c + size] for r in rows for c in columns]


def test_mu_plus_3_sigma_clips_half_the_power_of_gotcha(gotcha: np.ndarray) -> None:
    top = float(gotcha.mean() + 3 * gotcha.std())
    pixels, power = clipped_fraction(gotcha, top), clipped_power(gotcha, top)
    print(f"GOTCHA under mu+3sigma: {pixels:.2%} of pixels, {power:.1%} of power clipped")
    assert power == pytest.approx(0.49, abs=0.01)
    assert pixels == pytest.approx(0.013, abs=0.001)


def report_levels(name: str, image: np.ndarray) -> dict[float, float]:
    """Percentiles, dB over the mean intensity."""
    found = measure_levels(image / np.sqrt(np.square(image, dtype=float).mean()))
    levels = dict(zip(PERCENTILES, found.percentiles_db.round(1).tolist(), strict=True))
    print(f"{name}, dB over mean intensity: {levels}, bright excess {found.bright_excess_db:.4f}")
    return levels


def test_percentiles_of_real_scenes(
    gotcha: np.ndarray, spacenet6: dict[str, np.ndarray], mstar: list[np.ndarray]
) -> None:
    levels = report_levels("GOTCHA", gotcha)
    assert levels[99.9] - levels[50.0] == pytest.approx(27.5, abs=0.2)
    assert measure_levels(gotcha / gotcha.max()).bright_excess_db > 0.01
    for polarisation, image in spacenet6.items():
        report_levels(f"SpaceNet-6 {polarisation.upper()}", image)
    report_levels("MSTAR", np.concatenate([A[:128, :128] for A in mstar]))


def report_lines(name: str, tiles: list[np.ndarray]) -> tuple[float, float]:
    """Lines in dB of the tiles as they are, and with a grid of 0.5 dB."""
    plain = np.array([measure_spectrum(A).lines_db for A in tiles])
    lined = np.array([measure_spectrum(gridded(A, 0.5)).lines_db for A in tiles])
    each = [grid_lines_db(level) for level in plain]
    error = f" ± {np.std(each) / len(each) ** 0.5:.2f}" if len(each) > 1 else ""
    read, with_grid = grid_lines_db(plain), grid_lines_db(lined)
    print(f"{name}, {len(tiles)} tiles: lines {read:+.2f}{error} dB, with 0.5 dB {with_grid:+.2f}")
    return read, with_grid


def test_lines_of_gotcha_and_mstar_are_0_db(gotcha: np.ndarray, mstar: list[np.ndarray]) -> None:
    chips, gridded_chips = report_lines("MSTAR", mstar)
    assert chips == pytest.approx(0, abs=0.2)
    assert gridded_chips > chips + 0.1
    whole, gridded_scene = report_lines("GOTCHA whole", [gotcha])
    report_lines("GOTCHA 64 px", cut(gotcha, 64))
    # One scene of 361 segments has a standard error of 0.2 dB.
    assert whole == pytest.approx(0, abs=0.4)
    assert gridded_scene > whole + 1


def test_a_grid_raises_the_lines_of_spacenet6(spacenet6: dict[str, np.ndarray]) -> None:
    """A scene of 200 px has a standard error of 0.7 dB: its own reading is only reported."""
    for polarisation, image in spacenet6.items():
        read, with_grid = report_lines(f"SpaceNet-6 {polarisation.upper()}", [image])
        assert with_grid > read + 0.5


def test_texture_of_real_scenes_and_what_defects_do_to_it(
    gotcha: np.ndarray, mstar: list[np.ndarray], spacenet6: dict[str, np.ndarray]
) -> None:
    """Tiles of one scene are no independent groups: no null, but defects against halves of it."""
    rng = np.random.default_rng(0)
    sets = {"GOTCHA 64 px": cut(gotcha, 64), "MSTAR": [A[:128, :128] for A in mstar]}
    sets |= {f"SpaceNet-6 {p.upper()} 64 px": cut(A, 64) for p, A in spacenet6.items()}
    for name, tiles in sets.items():
        real = np.array([measure_texture(A) for A in tiles])
        one, other = real[::2], real[1::2]
        read = {"none": overall(texture_distance(one, other))}
        defects = {"blur": blurred, "shuffle": lambda A: shuffled(A, rng)}
        defects["re-speckle"] = lambda A: respeckled(A, rng)
        for defect, spoil in defects.items():
            spoiled = np.array([measure_texture(spoil(A)) for A in tiles[::2]])
            read[defect] = overall(texture_distance(spoiled, other))
        contrast = real[:, :, 0, FEATURES.index("contrast")].mean(0).round(1)
        print(
            f"{name}, {len(tiles)} tiles: distance", {k: round(v, 2) for k, v in read.items()},
            "contrast at 1 px", dict(zip(DIRECTIONS, contrast.tolist(), strict=True)),
        )  # fmt: skip
        if len(tiles) > 20:
            assert min(read[defect] for defect in defects) > 2 * read["none"], name


@pytest.mark.parametrize("width", [0, 16, 64])
def test_gotcha_has_no_seams_and_gets_them(gotcha: np.ndarray, width: int) -> None:
    joins = [Join(axis, at, width) for at in (160, 320, 480) for axis in (0, 1)]
    report = measure_seams(gotcha, joins)
    print(f"GOTCHA, joins of {width} px:", {t.name: round(t.p_value, 3) for t in report.tests})
    assert report.passed
    if width:
        seamed = gotcha.copy()
        rng = np.random.default_rng(0)
        for join in joins:
            band = [slice(None), slice(None)]
            band[join.axis] = slice(join.start, join.start + join.width)
            part = seamed[tuple(band)]
            seamed[tuple(band)] = (part + respeckled(part, rng)) / 2
        assert not measure_seams(seamed, joins).passed
