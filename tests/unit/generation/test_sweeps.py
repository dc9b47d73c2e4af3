"""A sweep in the loop over a shard: whole layouts, the same bits, the gate, refused settings."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from tiny_bundle import make_bundle

from hpc.errors import ConfigError
from sarhpc.generation.config import GenerateConfig, HomogeneousAreasConfig
from sarhpc.generation.finishing import SampledImage, Verdict
from sarhpc.generation.image_shard import GenerationStoppedError, Provenance, generate_shard
from sarhpc.generation.model import load_pipeline
from sarhpc.generation.plan import check_config, plan_generation, redrawn
from sarhpc.generation.sweeps.checks import require_contract
from sarhpc.generation.sweeps.config import SensorConfig, SweepConfig
from sarhpc.generation.sweeps.settings import images_per_layout
from sarhpc.shards.contract import PixelContract
from sarhpc.shards.images import decode_array
from sarhpc.shards.sample import Sample
from sarhpc.shards.schema import validate_sample

CONTRACT = {
    "schema": "sarhpc.contract/1", "calibration": "sigma0", "tiles": 1, "pixel_m": [0.35, 0.35],
    "incidence_deg": [20.0, 40.0], "band": ["X"],
    "normalisation": {"mode": "db", "low": [0.01, 0.01], "top": [9.0, 9.0]},
}  # fmt: skip
SENSOR = SensorConfig(resolution_m=[0.5, 1.0], looks=[2], noise_db=[None, -20.0], draws=2)
SWEEP = SweepConfig(incidence_deg=[20.0, 40.0], sensor=SENSOR)
EACH, IMAGES = 16, 3


def config(**changes: Any) -> GenerateConfig:
    settings: dict[str, Any] = {
        "prompts": ["a lake", "a road", "a river"], "images": IMAGES, "steps": 2, "batch": 2,
        "shard_samples": 100, "prompt_template": "SAR {prompt} {incidence}", "sweep": SWEEP,
    }  # fmt: skip
    return GenerateConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_pipeline(make_bundle(tmp_path_factory.mktemp("model")), config(), "cpu")


@pytest.fixture(scope="module")
def xl_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_pipeline(make_bundle(tmp_path_factory.mktemp("xl"), xl=True), config(), "cpu")


@pytest.fixture(scope="module")
def made(pipeline: Any) -> list[Sample]:
    return generate(pipeline, config())


def generate(pipeline: Any, cfg: GenerateConfig, **hooks: Any) -> list[Sample]:
    provenance = Provenance("m" * 64, "c" * 64)
    return [
        sample
        for number, inputs in enumerate(plan_generation(cfg))
        for sample in generate_shard(
            number, {**inputs, "contract": CONTRACT}, cfg, pipeline, provenance, **hooks
        ).samples
    ]


def contents(samples: Sequence[Sample]) -> dict[tuple[Any, ...], tuple[bytes, bytes]]:
    """Pixels of each setting of each layout, whatever shard and place they are in."""
    names = ("incidence_deg", "resolution_m", "looks", "noise_db", "speckle_draw")
    found = {
        (s.meta["layout"], *(s.meta["sweep"].get(name) for name in names)): (
            s.members["sar.png"], s.members["sar16.npy"],
        )
        for s in samples
    }  # fmt: skip
    assert len(found) == len(samples), "no setting of a layout is there twice"
    return found


def test_a_layout_has_one_image_of_each_setting_labelled_and_in_one_shard(
    made: list[Sample],
) -> None:
    assert len(made) == IMAGES * EACH == IMAGES * images_per_layout(config())
    shards: dict[str, set[str]] = {}
    for sample in made:
        validate_sample(sample)
        meta = sample.meta
        shards.setdefault(meta["layout"], set()).add(sample.key[:6])
        assert meta["prompt"].endswith(f" {meta['incidence_deg']:.0f}")
        assert meta["sweep"]["incidence_deg"] == meta["incidence_deg"]
        assert meta["sweep"]["speckle"] == "drawn"
        assert meta["sweep"]["noise_reference"] == "sigma0"
    assert [len(found) for found in shards.values()] == [1] * IMAGES
    assert [s.key for s in made] == sorted(s.key for s in made)
    for _, layout in itertools.groupby(made, key=lambda s: s.meta["layout"]):
        assert len({s.meta["seed"] for s in layout}) == 1, "the same noise under every condition"
    assert len({*contents(made).values()}) == len(made), "no two images are the same"


def test_the_same_bits_by_other_neighbours_order_settings_and_restarts(
    pipeline: Any, made: list[Sample]
) -> None:
    known = contents(made)
    few = dataclasses.replace(SENSOR, resolution_m=[1.0], draws=1)
    others = generate(
        pipeline,
        config(
            shard_samples=4, prompts=["a lake", "a river", "a road"],
            sweep=SweepConfig(incidence_deg=[40.0], sensor=few),
        ),
    )  # fmt: skip
    assert len(others) == 3 * 2
    assert contents(others).items() <= known.items()
    stops = iter([False, True])
    with pytest.raises(GenerationStoppedError):
        generate(pipeline, config(), stop=lambda: next(stops, True))
    again = generate(pipeline, config())
    assert [s.members for s in again] == [s.members for s in made]


def test_sdxl_sweeps_likewise(xl_pipeline: Any) -> None:
    first, again = (contents(generate(xl_pipeline, config(images=2))) for _ in range(2))
    assert len(first) == len({*first.values()}) == 2 * EACH
    assert first == again


def test_by_prompt_alone_images_are_those_that_the_model_draws(pipeline: Any) -> None:
    sweep = SweepConfig(incidence_deg=[20.0, 30.0, 40.0])
    samples = generate(pipeline, config(sweep=sweep, images=2))
    assert len(samples) == 6
    assert all(s.meta["sweep"]["speckle"] == "model" for s in samples)
    assert all("resolution_m" not in s.meta["sweep"] for s in samples)
    alone = generate(pipeline, config(sweep=None, prompts=["a lake"], prompt_template="{prompt}"))
    assert "layout" not in alone[0].meta
    assert "sweep" not in alone[0].meta


def test_the_gate_judges_what_the_model_drew_and_draws_whole_layouts_again(
    pipeline: Any,
) -> None:
    judged: list[tuple[int, int, str]] = []

    def judge(sampled: SampledImage) -> Verdict:
        """Refuses layout 1 at 40 degrees once."""
        request = sampled.request
        judged.append((request.index, request.draw, request.prompt))
        if (request.index, request.draw) == (1, 0) and request.prompt.endswith("40"):
            return Verdict("too_dark", redrawn(request), {"gate": {"verdict": "quarantined"}})
        return Verdict(facts={"gate": {"verdict": "accepted", "code": f"{request.index}"}})

    refused: list[Any] = []
    samples = generate(pipeline, config(), judge=judge, refused=refused.append)
    assert len(samples) == IMAGES * EACH
    [image] = refused
    assert image.sample.meta["prompt"].endswith(" 40"), "the image that was refused"
    assert "sweep" not in image.sample.meta, "as the model drew it"
    layouts = [list(g) for _, g in itertools.groupby(samples, key=lambda s: s.meta["layout"])]
    assert [len(layout) for layout in layouts] == [EACH] * IMAGES
    assert {s.meta["seed"] for s in layouts[1]} == {image.verdict.again.seed}
    drawn = {(draw, prompt[-2:]) for index, draw, prompt in judged if index == 1}
    assert drawn == {(0, "20"), (0, "40"), (1, "20"), (1, "40")}
    for layout in layouts:
        coded = [s for s in layout if "code" in s.meta["gate"]]
        assert coded == layout[:1], "a layout does not repeat itself"


def test_levels_follow_the_contract(pipeline: Any) -> None:
    quiet = dataclasses.replace(SENSOR, looks=[8], resolution_m=[0.5], draws=1)
    sweep = SweepConfig(sensor=dataclasses.replace(quiet, noise_db=[None, 3.0]))
    samples = generate(pipeline, config(sweep=sweep, prompt_template="{prompt}", images=2))
    law = PixelContract.from_json(CONTRACT).law
    assert law is not None
    power = [
        float((law.amplitudes(decode_array(s.members["sar16.npy"]) / 65535) ** 2).mean())
        for s in samples
    ]
    for clean, noisy in zip(power[::2], power[1::2], strict=True):
        assert noisy - clean == pytest.approx(10**0.3, rel=0.15)


def test_homogeneous_areas_are_those_of_the_looks_of_each_image(pipeline: Any) -> None:
    sensor = SensorConfig(resolution_m=[0.5], looks=[1, 16], noise_db=[12.0])
    cfg = config(
        sweep=SweepConfig(sensor=sensor), prompt_template="{prompt}", images=2,
        homogeneous_areas=HomogeneousAreasConfig(side_px=16),
    )  # fmt: skip
    samples = generate(pipeline, cfg)
    found = {s.meta["sweep"]["looks"]: s.meta["homogeneous_areas"] for s in samples}
    # Noise of one level over all is what they see.
    for looks, areas in found.items():
        assert all(0.8 * looks <= area["enl"] <= 1.5 * looks for area in areas)
    assert found[16]


@pytest.mark.parametrize(
    ("changes", "reported"),
    [
        ({"sweep": SweepConfig()}, "has no settings"),
        ({"sweep": SweepConfig(incidence_deg=[20.2, 20.4])}, "20, 20, some of them twice"),
        ({"sweep": SweepConfig(incidence_deg=[20.0, 20.0])}, "incidence_deg has 20.0 twice"),
        ({"sweep": SweepConfig(incidence_deg=[95.0])}, "degrees from 0 to 90"),
        ({"sweep": SweepConfig(band=["X"])}, "put {band} into generate.prompt_template"),
        ({"prompt_template": "{prompt}"}, "put {incidence} into generate.prompt_template"),
        ({"sensor": {"resolution_m": []}}, "resolution_m is empty"),
        ({"sensor": {"looks": []}}, "looks is empty"),
        ({"sensor": {"looks": [2, 0]}}, "looks=0: give 1 or more"),
        ({"sensor": {"looks": [-4]}}, "looks=-4"),
        ({"sensor": {"draws": 0}}, "draws=0"),
        ({"sensor": {"resolution_m": [0.5, 0.5]}}, "resolution_m has 0.5 twice"),
        ({"sensor": {"noise_db": [None, None]}}, "noise_db has null twice"),
        ({"sensor": {"resolution_m": [-0.5]}}, "give more than 0"),
        ({"sensor": {"resolution_m": [float("nan")]}}, "give more than 0"),
        ({"sensor": {"window_px": 8}}, "odd number"),
        ({"sensor": {"sidelobe_db": 5.0}}, "give 15 to 50"),
        ({"sensor": {"draws": 100}}, "800 settings of each layout: at most 256"),
        ({"shard_samples": 15}, "set generate.shard_samples to 16 or more, it is 15"),
        ({"height_px": 8, "width_px": 8}, "images of 8 px are smaller"),
    ],
)  # fmt: skip
def test_sweeps_that_cannot_be_are_refused_by_the_settings(
    changes: dict[str, Any], reported: str
) -> None:
    given = dict(changes)
    if "sensor" in given:
        sensor = dataclasses.replace(SENSOR, **given.pop("sensor"))
        given["sweep"] = dataclasses.replace(SWEEP, sensor=sensor)
    with pytest.raises(ConfigError) as raised:
        check_config(config(**given))
    assert reported in str(raised.value)


def test_spacings_by_prompt_leave_no_metre_for_a_sensor_model() -> None:
    sweep = SweepConfig(spacing_m=[0.3, 0.5], sensor=SENSOR)
    with pytest.raises(ConfigError, match="pixels of one spacing"):
        check_config(config(sweep=sweep, prompt_template="{prompt} {gsd}"))
    check_config(config(sweep=SweepConfig(spacing_m=[0.3, 0.5]), prompt_template="{prompt} {gsd}"))


@pytest.mark.parametrize(
    ("entries", "sensor", "sweep", "reported"),
    [
        (None, {}, {}, "no contract here"),
        ({"normalisation": None}, {}, {}, "does not state"),
        ({"pixel_m": [0.3, 0.5]}, {}, {}, "does not state"),
        ({}, {"resolution_m": [0.3]}, {}, "the finest is 0.394 m, what its pixels of 0.35 m hold"),
        ({}, {"model_resolution_m": 0.6}, {}, "the finest is 0.600 m, that of the model's tiles"),
        ({}, {"resolution_m": [9.0]}, {}, "at most 12 pixels of 0.35 m, 4.2 m"),
        ({}, {"noise_db": [30.0]}, {}, "-40.0 to 19.1 dB sigma0"),
        ({}, {"noise_db": [-60.0]}, {}, "noise_db=-60"),
        ({}, {}, {"incidence_deg": [20.0, 55.0]}, "learned from tiles of 20 to 40"),
        ({}, {}, {"band": ["X", "L"]}, "band=L: the model learned from tiles of X"),
    ],
)  # fmt: skip
def test_settings_that_the_contract_of_the_model_cannot_hold_are_refused(
    entries: dict[str, Any] | None, sensor: dict[str, Any], sweep: dict[str, Any], reported: str
) -> None:
    contract = None if entries is None else PixelContract.from_json({**CONTRACT, **entries})
    changed = dataclasses.replace(SWEEP, sensor=dataclasses.replace(SENSOR, **sensor), **sweep)
    with pytest.raises(ConfigError) as raised:
        require_contract(config(sweep=changed), contract, "no contract here")
    assert reported in str(raised.value)


def test_noise_of_a_model_without_calibration_is_relative_to_code_255() -> None:
    contract = PixelContract.from_json(
        {**CONTRACT, "calibration": "none", "normalisation": {"mode": "mu+3sigma", "top": [0.2, 2]}}
    )
    sensor = dataclasses.replace(SENSOR, noise_db=[3.0])
    with pytest.raises(ConfigError, match=r"0\.0 dB code 255"):
        require_contract(config(sweep=SweepConfig(sensor=sensor)), contract, "")
    sensor = dataclasses.replace(SENSOR, noise_db=[-3.0])
    require_contract(config(sweep=SweepConfig(sensor=sensor)), contract, "")


def test_settings_without_a_sweep_have_the_fingerprint_of_before() -> None:
    from hpc.config import fingerprint

    assert fingerprint(GenerateConfig(images=3)) == fingerprint(
        GenerateConfig(images=3, sweep=None)
    )
    assert "layout_images" not in plan_generation(GenerateConfig(prompts=["a lake"]))[0]
    assert [len(i["images"]) for i in plan_generation(config(shard_samples=40))] == [2, 1]
