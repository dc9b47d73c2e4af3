"""What is measured of each tile is what the functions of the measures give."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from known_features import WIDTHS, known_features
from speckle_tiles import speckle, tiles

from sarhpc.measures.features import Features, amplitude, join, measure
from sarhpc.measures.levels import measure_levels
from sarhpc.measures.log_cumulants import log_cumulants
from sarhpc.measures.looks import local_enl_histogram
from sarhpc.measures.speckle_correlation import lag_products
from sarhpc.measures.spectrum import measure_spectrum
from sarhpc.measures.texture import measure_texture


def speckle_tile(seed: int, size: int = 64) -> np.ndarray:
    return 0.2 * np.abs(speckle(np.random.default_rng(seed), size))


def test_codes_are_amplitudes_of_full_scale_and_0_is_half_a_code() -> None:
    codes = np.array([[0, 1, 51, 255]], np.uint8)
    assert amplitude(codes) == pytest.approx(np.array([[0.5 / 255, 1 / 255, 0.2, 1.0]]))
    tile = speckle_tile(0)
    assert amplitude(tile) is tile
    with pytest.raises(ValueError, match="type uint16; decode"):
        amplitude(codes.astype(np.uint16))


def test_measures_of_a_set_are_those_of_its_tiles_under_their_names() -> None:
    stack = [*tiles(0, 2), *(speckle_tile(seed, 96) for seed in (1, 2))]
    stack[0][0, :7] = 255
    stack[1][stack[1] == 255] = 254
    stack[2][0, 0] = 255.0  # an amplitude, which clips nothing
    found = measure(stack)
    assert len(found) == 4
    for row, tile in enumerate(stack):
        A = amplitude(tile)
        levels, spectrum, cumulants = measure_levels(A), measure_spectrum(A), log_cumulants(A**2)
        expected = {
            "local_enl": local_enl_histogram(A**2),
            "log_cumulants": (cumulants.k1, cumulants.k2, cumulants.k3),
            "histogram": levels.histogram,
            "percentiles_db": levels.percentiles_db,
            "mean_db": levels.mean_db,
            "bright_excess_db": levels.bright_excess_db,
            "clipped": (stack[0] == 255).mean() if row == 0 else 0,
            "lag_products": lag_products(A**2),
            "spectrum": spectrum.pooled,
            "radial": spectrum.radial,
            "lines_db": spectrum.lines_db,
            "texture": measure_texture(A),
        }
        assert expected.keys() == Features.__dataclass_fields__.keys()
        for name, value in expected.items():
            assert np.array_equal(getattr(found, name)[row], value), name
    assert {name: getattr(found, name).shape[1:] for name in WIDTHS} == WIDTHS


def test_sets_are_taken_apart_and_joined_in_order() -> None:
    whole = known_features(5, mean_db=[1, 2, 3, 4, 5])
    part = whole.subset(np.array([2, 0]))
    assert part.mean_db.tolist() == [3, 1]
    joined = join([part, whole])
    assert joined.mean_db.tolist() == [3, 1, 1, 2, 3, 4, 5]
    assert len(joined) == 7
    for name, shape in WIDTHS.items():
        assert getattr(joined, name).shape == (7, *shape), name
    with pytest.raises(dataclasses.FrozenInstanceError):
        part.mean_db = whole.mean_db  # type: ignore[misc]


def test_zeros_of_amplitude_count_as_half_of_the_least_other_value_in_log_cumulants() -> None:
    tile = speckle_tile(3)
    tile[5, 5] = 0
    filled = np.where(tile > 0, tile, tile[tile > 0].min() / 2)
    expected = log_cumulants(filled**2)
    found = measure([tile]).log_cumulants[0]
    assert found == pytest.approx([expected.k1, expected.k2, expected.k3])


def test_tiles_shorter_than_a_segment_of_the_spectrum_continue_as_their_mirror_image() -> None:
    tile = speckle_tile(4)[:40, :33]
    mirrored = np.concatenate([tile, tile[::-1]])[:64]
    mirrored = np.concatenate([mirrored, mirrored[:, ::-1]], axis=1)[:, :64]
    found = measure([tile])
    assert np.array_equal(found.spectrum[0], measure_spectrum(mirrored).pooled)
    assert np.array_equal(found.texture[0], measure_texture(tile))
    long = speckle_tile(4, 96)[:40]
    mirrored = np.concatenate([long, long[::-1]])[:64]
    assert np.array_equal(measure([long]).spectrum[0], measure_spectrum(mirrored).pooled)
    white = [np.random.default_rng(seed).rayleigh(size=(32, 32)) for seed in range(40)]
    # The variance of ln A is pi^2/24 and in every bin; bins scatter by 0.3 dB in the mean of 40.
    assert measure(white).spectrum.mean() == pytest.approx(np.pi**2 / 24, rel=0.1)


def nan(tile: np.ndarray) -> np.ndarray:
    return np.where(tile > tile.mean(), np.nan, tile)


def gap(tile: np.ndarray) -> np.ndarray:
    return np.where(np.arange(64) < 20, 0.0, tile)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tile: tile[:20], "tile 2: .* at least 32 x 32"),
        (lambda tile: tile[:, :31], "tile 2: .* at least 32 x 32"),
        (lambda tile: tile * 0 + 7.0, "tile 2: .*constant, 7 everywhere"),
        (lambda tile: (tile * 0 + 7).astype(np.uint8), "tile 2: .*constant"),
        (nan, "tile 2: .*NaN"),
        (lambda tile: tile - 1, "tile 2: .*negative"),
        (gap, "tile 2: .*windows of 9 px are 0 everywhere"),
        (lambda tile: tile * 1e6, "tile 2: the median level is 1"),
        (lambda tile: np.stack([tile] * 3), "tile 2: .*one tile"),
        (lambda tile: tile + 1j, "tile 2: .*complex"),
    ],
)
def test_a_tile_that_cannot_be_measured_is_refused_by_its_number(damage, message: str) -> None:  # type: ignore[no-untyped-def]
    good = [speckle_tile(0), speckle_tile(1)]
    with pytest.raises(ValueError, match=message):
        measure([*good, damage(speckle_tile(2)), good[0]])


def test_no_tiles_are_refused() -> None:
    with pytest.raises(ValueError, match="no tiles"):
        measure([])


def test_8_bit_tiles_as_dark_as_can_be_are_measured() -> None:
    tile = np.zeros((64, 64), np.uint8)
    tile[30, 30] = 1
    found = measure([tile])
    assert all(np.isfinite(getattr(found, name)).all() for name in WIDTHS)


def test_ten_tiles_of_512_px_are_measured_a_second_and_core() -> None:
    tile = (255 * np.minimum(speckle_tile(0, 512), 1)).astype(np.uint8)
    taken = []
    for _ in range(5):
        start = time.process_time()
        measure([tile])
        taken.append(time.process_time() - start)
    print(f"\nE1 to E6 of a tile of 512 px: {1 / min(taken):.0f} a second and core")
    assert min(taken) < 0.1
