"""The sensor model on procedural layouts, whose reflectivity is known: the control of sweeps."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from speckle_measures import enl_of, lag_1_of, mean_interval, rise

from sarhpc.archive.procedural.config import ProceduralConfig
from sarhpc.archive.procedural.simulate import scene_ids, simulate_scene
from sarhpc.generation.sweeps.reflectivity import estimated_reflectivity
from sarhpc.generation.sweeps.sensor import Scene, look_fields, sensor_images
from sarhpc.generation.sweeps.settings import Sensor
from sarhpc.imaging.focusing import resolution_px, unit_noise_response
from sarhpc.measures.point_response import point_response
from sarhpc.measures.speckle_correlation import autocorrelation_of_band

pytestmark = pytest.mark.slow

PIXEL_M, PX, LAYOUTS, SIDELOBE_DB = 0.35, 128, 8, 30.0
RESOLUTIONS = (0.45, 0.6, 0.9, 1.4)
LOOKS = (1, 2, 4, 8)
ALL = np.arange(LAYOUTS)


@pytest.fixture(scope="module")
def layouts() -> list[Scene]:
    cfg = ProceduralConfig(
        seed=11, scenes=LAYOUTS, size_px=PX, scenes_per_line=1, pixel_m=PIXEL_M, optical=False
    )
    return [
        Scene(simulate_scene(cfg, scene).sigma0, PIXEL_M, number, "procedural")
        for number, scene in enumerate(scene_ids(cfg))
    ]


@pytest.fixture(scope="module")
def resolved(layouts: list[Scene]) -> NDArray[np.float64]:
    """The ground as a sensor of 0.6 m resolves it: the mean of many looks of another draw."""
    sensor = Sensor(0.6, 24, None, 9)
    return np.array(images(layouts, sensor)[sensor])


def images(layouts: list[Scene], *sensors: Sensor) -> dict[Sensor, list[NDArray[np.float64]]]:
    made = [dict(sensor_images(layout, sensors, SIDELOBE_DB)) for layout in layouts]
    return {sensor: [each[sensor] for each in made] for sensor in sensors}


def test_measured_looks_rise_with_the_looks_averaged(layouts: list[Scene]) -> None:
    found = images(layouts, *(Sensor(0.6, looks, None, 0) for looks in LOOKS))
    enl = [enl_of(image, sensor.looks) for sensor, image in found.items()]
    print([round(measure(ALL), 2) for measure in enl])
    for lower, upper in itertools.pairwise(enl):
        assert rise(lower, upper, LAYOUTS)[0] > 0
    # The texture of this ground lowers all of them: a flat one has the looks asked for (below).
    assert 0.6 < enl[0](ALL) < 1.1


def test_looks_of_uniform_ground_are_those_averaged() -> None:
    ground = [Scene(np.full((PX, PX), 0.1), PIXEL_M, seed, "flat") for seed in range(LAYOUTS)]
    for sensor, made in images(ground, *(Sensor(0.6, looks, -10.0, 0) for looks in LOOKS)).items():
        enl = np.mean(made) ** 2 / np.var(made)
        assert enl == pytest.approx(sensor.looks, rel=0.08), "noise is speckle too"
        assert np.mean(made) == pytest.approx(0.2, rel=0.02)


def test_impulse_response_is_as_wide_as_asked_in_both_directions(layouts: list[Scene]) -> None:
    widths = []
    for resolution in RESOLUTIONS:
        chips = []
        for layout in layouts:
            ground = layout.reflectivity.astype(np.float64)
            # A point reflector 60 dB over the mean, in speckle of its own ground.
            ground[PX // 2, PX // 2] = 1e6 * ground.mean()
            reflector = Scene(ground, PIXEL_M, layout.seed, layout.owner)
            chips.append(look_fields(reflector, resolution, 0, 0, SIDELOBE_DB)[0])
        response = point_response(chips, (PIXEL_M, PIXEL_M))
        for axis in (response.range, response.azimuth):
            assert axis.irw_m == pytest.approx(resolution, rel=0.02)
            assert axis.pslr_db == pytest.approx(-SIDELOBE_DB, abs=1.5)
        widths.append(response.range.irw_m)
    assert widths == sorted(widths)


def test_speckle_correlates_as_the_band_of_the_resolution_does(layouts: list[Scene]) -> None:
    found = images(layouts, *(Sensor(resolution, 1, None, 0) for resolution in RESOLUTIONS))
    lags = [lag_1_of(image, 1) for image in found.values()]
    print([round(measure(ALL), 3) for measure in lags])
    for lower, upper in itertools.pairwise(lags):
        assert rise(lower, upper, LAYOUTS)[0] > 0
    for resolution in RESOLUTIONS[:2]:
        band = resolution_px(1.0, SIDELOBE_DB) * PIXEL_M / resolution
        theory = autocorrelation_of_band(unit_noise_response(4096, band, SIDELOBE_DB))[0]
        ground = [Scene(np.ones((PX, PX)), PIXEL_M, seed, "flat") for seed in range(LAYOUTS)]
        sensor = Sensor(resolution, 1, None, 0)
        flat = lag_1_of(images(ground, sensor)[sensor], 1)(ALL)
        assert flat == pytest.approx(theory, abs=0.03)


def test_noise_raises_the_mean_level_by_its_power(layouts: list[Scene]) -> None:
    levels = (-30.0, -22.0, -16.0)
    clean, *noisy = images(
        layouts, Sensor(0.6, 4, None, 0), *(Sensor(0.6, 4, level, 0) for level in levels)
    ).values()
    for level, made in zip(levels, noisy, strict=True):
        added = [
            float((image - without).mean()) for image, without in zip(made, clean, strict=True)
        ]
        low, high = mean_interval(added)
        power = 10 ** (level / 10)
        print(level, low / power, high / power)
        assert low <= power <= high or abs(np.mean(added) / power - 1) < 0.05


def test_draws_of_a_layout_share_its_ground_and_no_speckle(
    layouts: list[Scene], resolved: NDArray[np.float64]
) -> None:
    first, second = (
        np.array(made)
        for made in images(layouts, *(Sensor(0.6, 1, None, draw) for draw in (0, 1))).values()
    )
    speckle = [
        np.corrcoef((a / g).ravel(), (b / g).ravel())[0, 1]
        for a, b, g in zip(first, second, resolved, strict=True)
    ]
    # Both are divided by one mean of 24 looks, whose own speckle they then share: 1 / 24.
    low, high = mean_interval(speckle)
    assert low < 1 / 24
    assert high < 0.1
    blocks = [_coarse(made) for made in (first, second)]
    layout = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(*blocks, strict=True)]
    assert mean_interval(layout)[0] > 0.5


def _coarse(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of 16 x 16 px in dB."""
    side = PX // 16
    means = image.reshape(len(image), side, 16, side, 16).mean((2, 4))
    return 10 * np.log10(means)


def test_a_draw_keeps_its_scatterers_whatever_else_is_swept(layouts: list[Scene]) -> None:
    few = images(layouts[:1], Sensor(0.6, 1, None, 0), Sensor(0.6, 2, -20.0, 1))
    many = images(
        layouts[:1],
        *(Sensor(r, n, db, draw) for r in (0.9, 0.6) for n in (2, 1) for db in (None, -20.0)
          for draw in (1, 0)),
    )  # fmt: skip
    for sensor, made in few.items():
        np.testing.assert_array_equal(made[0], many[sensor][0])


def test_the_filter_keeps_the_level_and_removes_speckle_of_known_looks(
    layouts: list[Scene], resolved: NDArray[np.float64]
) -> None:
    sensor = Sensor(0.6, 1, None, 0)
    for ground, image in zip(resolved, images(layouts, sensor)[sensor], strict=True):
        found = estimated_reflectivity(image, 1.0, 9)
        assert abs(10 * math.log10(found.mean() / image.mean())) < 0.3
        errors = [np.std(np.log(estimate / ground)) for estimate in (image, found)]
        assert errors[1] < errors[0], "nearer to the ground than the image is"
    flat = Scene(np.full((PX, PX), 0.1), PIXEL_M, 0, "flat")
    [(_, image)] = sensor_images(flat, [sensor], SIDELOBE_DB)
    spread = [np.std(np.log(estimate)) for estimate in (image, estimated_reflectivity(image, 1, 9))]
    assert spread[0] == pytest.approx(math.pi / math.sqrt(6), rel=0.1), "speckle of one look"
    assert spread[1] < 0.4
    assert estimated_reflectivity(np.zeros((16, 16)), 1.0, 9).max() == 0
