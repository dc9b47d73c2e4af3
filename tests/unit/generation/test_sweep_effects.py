"""What a sweep of generated images measures: the embedded model, 128 px, eight layouts."""

from __future__ import annotations

import itertools
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from speckle_measures import enl_of, lag_1_of, mean_interval, rise

from hpc.documents import read_json
from hpc.publish import publish_json
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.image_shard import Provenance, generate_shard
from sarhpc.generation.model import load_pipeline
from sarhpc.generation.plan import plan_generation
from sarhpc.generation.sweeps.config import SensorConfig, SweepConfig
from sarhpc.measures.point_response import point_response
from sarhpc.shards.contract import CONTRACT_FILE
from sarhpc.shards.images import decode_array
from sarhpc.shards.radiometry import master_amplitude
from sarhpc.shards.sample import Sample

pytestmark = pytest.mark.slow

EMBEDDED = Path(__file__).parents[3] / "sarhpc" / "embedded"
LAYOUTS = 8
ALL = np.arange(LAYOUTS)
RESOLUTIONS, LOOKS, NOISE_DB = [0.5, 0.75, 1.1], [1, 2, 4, 8], [None, -16.0, -10.0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with the contract of tiles such as it learned from."""
    folder = tmp_path_factory.mktemp("model") / "sar"
    shutil.copytree(EMBEDDED / "sar", folder)
    publish_json(folder / CONTRACT_FILE, read_json(EMBEDDED / "clip" / CONTRACT_FILE))
    return folder


@pytest.fixture(scope="module")
def samples(model: Path) -> list[Sample]:
    sensor = SensorConfig(resolution_m=RESOLUTIONS, looks=LOOKS, noise_db=NOISE_DB, draws=2)
    cfg = GenerateConfig(
        prompts=["a large lake", "a forest", "a crop field", "a town with houses and streets"],
        images=LAYOUTS, steps=10, guidance=4.0, batch=4, shard_samples=1000,
        sweep=SweepConfig(sensor=sensor),
    )  # fmt: skip
    pipeline = load_pipeline(model, cfg, "cpu")
    [inputs] = plan_generation(cfg)
    inputs = {**inputs, "contract": read_json(model / CONTRACT_FILE)}
    return list(generate_shard(0, inputs, cfg, pipeline, Provenance("m", "c")).samples)


def intensities(samples: Sequence[Sample], **setting: Any) -> list[NDArray[np.float64]]:
    """Intensity of the images of one setting, by layout."""
    wanted = {"resolution_m": 0.5, "looks": 1, "noise_db": None, "speckle_draw": 0, **setting}
    found = [s for s in samples if wanted.items() <= s.meta["sweep"].items()]
    assert len({s.meta["layout"] for s in found}) == len(found) == LAYOUTS
    return [
        master_amplitude(decode_array(s.members["sar16.npy"]), s.meta).astype(np.float64) ** 2
        for s in found
    ]


def test_every_layout_has_every_setting_side_by_side(samples: list[Sample]) -> None:
    each = len(RESOLUTIONS) * len(LOOKS) * len(NOISE_DB) * 2
    assert len(samples) == LAYOUTS * each
    settings = defaultdict(list)
    for sample in samples:
        setting = sample.meta["sweep"]
        settings[sample.meta["layout"]].append(
            (
                setting["resolution_m"],
                setting["looks"],
                setting["noise_db"],
                setting["speckle_draw"],
            )
        )
    assert len(settings) == LAYOUTS
    assert all(len({*found}) == each for found in settings.values())
    order = [sample.meta["layout"] for sample in samples]
    assert order == [layout for layout in dict.fromkeys(order) for _ in range(each)]


def test_looks_measured_in_generated_images_rise_with_those_averaged(
    samples: list[Sample],
) -> None:
    measures = [enl_of(intensities(samples, looks=looks), looks) for looks in LOOKS]
    rises = [rise(a, b, LAYOUTS) for a, b in itertools.pairwise(measures)]
    print([round(m(ALL), 2) for m in measures], rises)
    assert all(low > 0 for low, _ in rises)


def test_speckle_correlation_of_generated_images_rises_with_resolution_in_metres(
    samples: list[Sample],
) -> None:
    measures = [lag_1_of(intensities(samples, resolution_m=metres), 1) for metres in RESOLUTIONS]
    rises = [rise(a, b, LAYOUTS) for a, b in itertools.pairwise(measures)]
    print([round(m(ALL), 3) for m in measures], rises)
    assert all(low > 0 for low, _ in rises)


def test_noise_raises_the_floor_of_generated_images(samples: list[Sample]) -> None:
    floors = [
        [10 * np.log10(np.quantile(_coarse(image), 0.05)) for image in intensities(
            samples, noise_db=level, looks=8
        )]
        for level in NOISE_DB
    ]  # fmt: skip
    print(np.mean(floors, 1))
    for lower, upper in itertools.pairwise(floors):
        assert mean_interval(np.subtract(upper, lower).tolist())[0] > 0
    clean, _, noisy = (intensities(samples, noise_db=level, looks=8) for level in NOISE_DB)
    dark = [number for number, image in enumerate(clean) if image.mean() < 0.05]
    added = [float(noisy[n].mean() - clean[n].mean()) for n in dark]
    assert len(dark) >= 2
    assert np.mean(added) == pytest.approx(0.1, rel=0.1), "-10 dB of code 255"


def test_draws_of_a_generated_layout_share_ground_and_no_speckle(samples: list[Sample]) -> None:
    first, second = (intensities(samples, speckle_draw=draw) for draw in (0, 1))
    within, between = [], []
    for a, b in zip(first, second, strict=True):
        # Ground was estimated by a window of 9 px: what varies within 3 px is speckle.
        fine = [(np.log(i) - uniform_filter(np.log(i), 3)).ravel() for i in (a, b)]
        within.append(float(np.corrcoef(*fine)[0, 1]))
        between.append(float(np.corrcoef(*(np.log(_coarse(i)).ravel() for i in (a, b)))[0, 1]))
    print(mean_interval(within), mean_interval(between))
    assert mean_interval(within)[0] > -0.05
    assert mean_interval(within)[1] < 0.05
    assert mean_interval(between)[0] > 0.4


def _coarse(image: NDArray[np.float64]) -> NDArray[np.float64]:
    return image.reshape(16, 8, 16, 8).mean((1, 3))


def test_impulse_response_over_generated_ground_is_as_wide_as_asked(
    samples: list[Sample],
) -> None:
    from sarhpc.generation.sweeps.reflectivity import estimated_reflectivity
    from sarhpc.generation.sweeps.sensor import Scene, look_fields

    # Eight looks are the nearest to what the layouts return; a reflector is put into each.
    grounds = [estimated_reflectivity(image, 8.0, 9) for image in intensities(samples, looks=8)]
    widths = []
    for metres in RESOLUTIONS:
        chips = []
        for number, ground in enumerate(grounds):
            ground[64, 64] = 1e6 * float(np.median(ground))
            chips.append(look_fields(Scene(ground, 0.35, number, "g"), metres, 0, 0, 30.0)[0])
        response = point_response(chips, (0.35, 0.35))
        widths.append(response.range.irw_m)
        assert response.range.irw_m == pytest.approx(metres, rel=0.03)
        assert response.azimuth.irw_m == pytest.approx(metres, rel=0.03)
    assert widths == sorted(widths)
