"""Images under the noise schedules: finite, changed, of sane level and contrast, recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_bundle import make_bundle

from hpc.errors import ConfigError
from sarhpc.api.models import load_model
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.image_shard import Provenance, generate_shard
from sarhpc.generation.model import load_pipeline
from sarhpc.generation.plan import plan_generation, shard_requests
from sarhpc.generation.sampler import sample_images
from sarhpc.generation.schedules import SCHEDULERS, SCHEDULES, check_model_schedule, check_schedule
from sarhpc.shards.sample import Sample
from sarhpc.stages.inputs.paths import model_folder

pytestmark = pytest.mark.slow

PROMPTS = ["A SAR image of a lake", "A SAR image of a field"]


def config(scheduler: str, schedule: str | None, steps: int) -> GenerateConfig:
    return GenerateConfig(
        prompts=PROMPTS,
        prompt_template="{prompt}",
        steps=steps,
        batch=2,
        guidance=4.0,
        scheduler=scheduler,
        schedule=schedule,
    )


def taken(model: Path) -> list[tuple[str, str | None]]:
    """Every pair that a model takes, the model's own schedule among them."""
    pairs: list[tuple[str, str | None]] = []
    for scheduler in SCHEDULERS:
        for schedule in (None, *SCHEDULES):
            cfg = config(scheduler, schedule, 4)
            try:
                check_schedule(cfg)
                check_model_schedule(model, cfg)
            except ConfigError:
                continue
            pairs.append((scheduler, schedule))
    return pairs


def images(model: Path, cfg: GenerateConfig) -> NDArray[np.float32]:
    [inputs] = plan_generation(cfg)
    return sample_images(load_pipeline(model, cfg, "cpu"), shard_requests(inputs), cfg, 2, 1)


@pytest.mark.parametrize("xl", [False, True], ids=["sd15", "sdxl"])
def test_every_pair_makes_finite_images_of_its_own(xl: bool, tmp_path: Path) -> None:
    model = make_bundle(tmp_path, xl=xl)
    pairs = taken(model)
    assert len(pairs) == 33
    found = {pair: images(model, config(*pair, 4)) for pair in pairs}
    assert all(np.isfinite(image).all() for image in found.values())
    for scheduler, schedule in pairs:
        if schedule is not None:
            assert not np.array_equal(found[scheduler, schedule], found[scheduler, None])


def require_sane(model: Path, pairs: list[tuple[str, str | None]], steps: int) -> None:
    """Level within 0.1 of the range, and contrast within a factor of 2, of DDIM's."""
    usual = images(model, config("ddim", None, steps)).mean(axis=3)
    for pair in pairs:
        found = images(model, config(*pair, steps)).mean(axis=3)
        assert np.isfinite(found).all()
        level = found.mean((1, 2)) - usual.mean((1, 2))
        contrast = found.std((1, 2)) / usual.std((1, 2))
        print(*pair, f"level {np.round(level, 3)} contrast {np.round(contrast, 2)}")
        assert np.abs(level).max() < 0.1, pair
        assert (contrast > 0.5).all(), pair
        assert (contrast < 2).all(), pair


def test_images_of_an_embedded_model_stay_sane_under_each_schedule() -> None:
    pairs: list[tuple[str, str | None]] = [
        ("euler", "karras"),
        ("unipc", "exponential"),
        ("heun", "beta"),
    ]
    require_sane(Path(model_folder("embedded:base")), pairs, 8)
    require_sane(Path(model_folder("embedded:sar")), [("dpmsolver", "trailing")], 8)


@pytest.mark.long
@pytest.mark.parametrize("name", ["base", "sar"])
def test_images_of_the_embedded_models_stay_sane_under_every_pair(name: str) -> None:
    model = Path(model_folder(f"embedded:{name}"))
    pairs = taken(model)
    assert len(pairs) == {"base": 33, "sar": 15}[name]
    require_sane(model, pairs, 25)


def samples(model: Path, cfg: GenerateConfig, inputs: dict[str, Any]) -> list[Sample]:
    pipeline = load_pipeline(model, cfg, "cpu")
    return list(generate_shard(0, inputs, cfg, pipeline, Provenance("m", "c")).samples)


def test_the_schedule_is_recorded_and_an_image_depends_on_itself_alone(tmp_path: Path) -> None:
    model = make_bundle(tmp_path)
    for cfg in (config("unipc", "beta", 50), config("euler_ancestral", "trailing", 4)):
        [inputs] = plan_generation(cfg)
        whole, again = (samples(model, cfg, inputs) for _ in range(2))
        assert [one.meta["schedule"] for one in whole] == [cfg.schedule] * 2
        assert whole == again, "the same after a restart"
        turned = samples(model, cfg, {**inputs, "images": inputs["images"][::-1]})
        kept = [one.members["sar.png"] for one in turned]
        assert kept == [one.members["sar.png"] for one in whole[::-1]], "by no neighbour or order"
    own = config("ddim", None, 2)
    [inputs] = plan_generation(own)
    assert "schedule" not in samples(model, own, inputs)[0].meta


def test_a_pipeline_of_another_schedule_is_not_used(tmp_path: Path) -> None:
    pipeline = load_pipeline(make_bundle(tmp_path), config("euler", "karras", 2), "cpu")
    for other in (config("euler", "beta", 2), config("heun", "karras", 2)):
        [inputs] = plan_generation(other)
        with pytest.raises(ConfigError, match=f"specifies {other.scheduler} .* {other.schedule}"):
            generate_shard(0, inputs, other, pipeline, Provenance("m", "c"))


def test_python_refuses_what_a_model_is_not_sampled_with_before_loading_it() -> None:
    with pytest.raises(ConfigError, match=r"other betas than it is trained with; use ddim"):
        load_model("embedded:sar", scheduler="pndm")
    with pytest.raises(ConfigError, match=r"schedule=karras.* use trailing"):
        load_model("embedded:sar", scheduler="euler", schedule="karras")
