"""Each limit of a search for reflectors, from both sides, on images of single bright pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_point_response import expected, reflector, response

from sarhpc.measures.point_response import point_response
from sarhpc.measures.reflectors import isolated_reflectors


def bright(*pixels: tuple[int, int, float], size: int = 200) -> np.ndarray:
    """Amplitude of clutter of 0 dB, with pixels (row, col, dB)."""
    image = np.ones((size, size))
    for row, col, level_db in pixels:
        image[row, col] = 10 ** (level_db / 20)
    return image


def places(image: np.ndarray) -> list[tuple[int, int]]:
    return [(found.row, found.col) for found in isolated_reflectors(image)]


@pytest.mark.parametrize(
    ("neighbour", "is_isolated"),
    [
        ((100, 108, 48), True),  # within 8 px another maximum may be up to 10 dB lower
        ((92, 108, 48), True),
        ((100, 108, 50.5), False),
        ((100, 109, 48), False),  # farther away it has to be 20 dB lower
        ((109, 100, 40.5), False),
        ((109, 100, 39.5), True),
        ((100, 101, 60), False),  # both of a pair that is clipped
    ],
)
def test_how_bright_a_neighbour_may_be_depends_on_its_distance(
    neighbour: tuple[int, int, float], is_isolated: bool
) -> None:
    found = places(bright((100, 100, 60), neighbour))
    assert found == ([(100, 100)] if is_isolated else [])


def test_a_reflector_is_30_db_over_the_clutter() -> None:
    assert places(bright((100, 100, 29.5))) == []
    [found] = isolated_reflectors(bright((100, 100, 30.5)))
    assert found.over_clutter_db == pytest.approx(30.5)


def test_a_reflector_has_a_whole_chip_around_it_and_the_strongest_is_first() -> None:
    inside, outside = ((32, 100), (167, 100), (100, 32), (100, 167)), ((31, 31), (168, 168))
    image = bright(*((*at, 40.0 + at[0] / 10) for at in (*inside, *outside)))
    assert places(image) == [(167, 100), (100, 32), (100, 167), (32, 100)]
    assert all(
        found.chip(image, 64)[32, 32] == image[found.row, found.col]
        for found in isolated_reflectors(image)
    )


def test_a_chip_of_odd_size_and_an_image_without_a_chip_are_refused() -> None:
    for chip_px in (30, 65):
        with pytest.raises(ValueError, match="even number of 32 or more"):
            isolated_reflectors(bright(), chip_px)
    for shape in ((63, 200), (3, 200, 200)):
        with pytest.raises(ValueError, match="holds no chip of 64 px"):
            isolated_reflectors(np.ones(shape))


@pytest.mark.parametrize(("over_clutter_db", "is_measured"), [(19.5, False), (20.5, True)])
def test_a_response_is_measured_of_peaks_20_db_over_the_clutter(
    over_clutter_db: float, is_measured: bool
) -> None:
    rng = np.random.default_rng(0)
    clutter = np.exp(2j * np.pi * rng.random((64, 64)))
    clutter[16:49], clutter[:, 16:49] = 0, 0
    # Of exponential speckle the median is the mean times ln 2.
    level = math.sqrt(math.log(2) * 10 ** (-over_clutter_db / 10))
    chip = reflector((32, 32), kind="taylor") + level * clutter
    if is_measured:
        assert point_response([chip], (1.0, 1.0)).reflectors == 1
    else:
        with pytest.raises(ValueError, match="less than 20 dB over the clutter"):
            point_response([chip], (1.0, 1.0))


def test_a_width_is_that_of_the_weighting_to_2_in_10_000() -> None:
    irw, *_ = expected("uniform", 0.8)
    lines = [response(np.arange(96) - 48 - at, "uniform", 0.8) for at in (0.03, 0.034)]
    found = point_response([np.outer(*lines)], (1.0, 1.0))
    assert found.range.irw_px == pytest.approx(irw, rel=2e-4)
    assert found.azimuth.irw_px == pytest.approx(irw, rel=2e-4)
