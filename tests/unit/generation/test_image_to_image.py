"""Image to image: the source comes back at strength near 0, fades as it rises, and is recorded."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from controlnet_models import save_with_controlnet
from numpy.typing import NDArray
from tiny_bundle import make_bundle

from hpc.errors import ConfigError
from sarhpc.generation.config import GenerateConfig, SteerConfig
from sarhpc.generation.image_shard import GenerationStoppedError, Provenance, generate_shard
from sarhpc.generation.model import load_pipeline
from sarhpc.generation.plan import ImageRequest, plan_generation
from sarhpc.generation.sampler import sample_images
from sarhpc.generation.schedules import SCHEDULERS
from sarhpc.generation.sources.config import ImageToImageConfig
from sarhpc.generation.sources.found import images_below
from sarhpc.generation.sources.latents import latents_of
from sarhpc.generation.sources.mean_power import with_mean_power
from sarhpc.generation.sources.source_images import SourceImage, SourceImages
from sarhpc.generation.steering import SteeringLayers
from sarhpc.generation.sweeps.config import SweepConfig
from sarhpc.shards.contract import LawSpan, PixelContract
from sarhpc.shards.images import decode_gray8, encode_gray8
from sarhpc.shards.radiometry import Normalisation
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.schema import validate_sample
from sarhpc.shards.writer import write_shard

pytestmark = pytest.mark.slow

NAMES = ["a lake.png", "b/a wood.png", "c.png"]


def config(strength: float = 0.5, keep: float | None = None, **changes: Any) -> GenerateConfig:
    settings = {"images": 5, "steps": 4, "batch": 2, "shard_samples": 3, "prompts": ["a river"]}
    image = ImageToImageConfig(strength=strength, keep_mean_px=keep)
    return GenerateConfig(**{**settings, "image_to_image": image, **changes})


def pictures(folder: Path, side: int, names: Sequence[str] = NAMES) -> SourceImages:
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode_gray8(rng.integers(0, 256, (side, side), np.uint8)))
    return SourceImages(images_below(folder), None)


def generate(
    pipeline: Any, cfg: GenerateConfig, sources: SourceImages, order: int = 1, **options: Any
) -> list[Sample]:
    made = {
        number: list(
            generate_shard(
                number, inputs, cfg, pipeline, Provenance("m", "c"), sources=sources, **options
            ).samples
        )
        for number, inputs in list(enumerate(plan_generation(cfg)))[::order]
    }
    return [sample for number in sorted(made) for sample in made[number]]


def copies(pipeline: Any, images: Sequence[SourceImage]) -> NDArray[np.float32]:
    """What the autoencoder makes of the images, encoded and decoded."""
    with torch.no_grad():
        latents = torch.cat([latents_of(pipeline, image) for image in images])
        decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    return np.asarray((decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1))


@pytest.fixture(scope="module")
def xl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("xl"), xl=True)


@pytest.fixture(params=["sd15", "sdxl"])
def family(request: pytest.FixtureRequest, model_folder: Path, xl_folder: Path) -> tuple[Path, int]:
    """A folder of each family, and the side of its images."""
    return (model_folder, 16) if request.param == "sd15" else (xl_folder, 32)


def test_images_begin_with_their_sources_and_say_which(
    family: tuple[Path, int], tmp_path: Path
) -> None:
    model, side = family
    sources, cfg = pictures(tmp_path, side), config()
    samples = generate(load_pipeline(model, cfg, "cpu"), cfg, sources)
    assert len(samples) == 5
    for number, sample in enumerate(samples):
        validate_sample(sample)
        source = sources.load(number)
        assert sample.meta["image_to_image"] == {
            "image": sorted(NAMES)[number % 3],
            "sha256": source.sha256,
            "strength": 0.5,
            "denoising_steps": 2,
        }, "taken in turn, over all shards"
        assert decode_gray8(sample.members["sar.png"]).shape == (side, side)
        assert "geolocation" not in sample.meta


def test_bits_depend_on_no_order_neighbour_or_stop(
    family: tuple[Path, int], tmp_path: Path
) -> None:
    model, side = family
    sources, cfg = pictures(tmp_path, side), config()
    pipeline = load_pipeline(model, cfg, "cpu")
    samples = generate(pipeline, cfg, sources)
    again = generate(load_pipeline(model, cfg, "cpu"), cfg, sources, order=-1)
    assert [sample.members for sample in again] == [sample.members for sample in samples]
    planned = plan_generation(cfg)[0]
    requests = [ImageRequest(1, planned["prompts"][0], planned["images"][1][1])]
    [alone] = sample_images(pipeline, requests, cfg, 2, 1, begun=[sources.load(1)])
    gray = np.round(alone.mean(axis=2) * 255).astype(np.uint8)
    np.testing.assert_array_equal(gray, decode_gray8(samples[1].members["sar.png"]))
    stops = iter([False, True])
    with pytest.raises(GenerationStoppedError):
        generate(pipeline, cfg, sources, stop=lambda: next(stops))
    assert generate(pipeline, cfg, sources) == samples


def test_the_copy_of_the_autoencoder_at_strength_near_0_fades_as_it_rises() -> None:
    """Of the embedded model, each image by itself: with a 95 % interval over images."""
    folder = Path(__file__).parents[3] / "sarhpc" / "embedded" / "sar"
    rng, count = np.random.default_rng(1), 6
    fields = rng.exponential(1.0, (count, 32, 32)).repeat(4, 1).repeat(4, 2)
    speckle = rng.exponential(1.0, (count, 128, 128))
    levels = np.minimum(np.sqrt(fields * speckle) / 3, 1).astype(np.float32)
    begun = [SourceImage(image, f"{n}", "") for n, image in enumerate(levels)]
    requests = [ImageRequest(number, "A SAR image of a field", number) for number in range(count)]
    pipeline, distances = load_pipeline(folder, config(), "cpu"), []
    same = copies(pipeline, begun)
    for strength, steps in ((0.001, 1000), (0.1, 10), (0.4, 10), (0.8, 10)):
        cfg = config(strength=strength, steps=steps, guidance=1.0)
        made = sample_images(pipeline, requests, cfg, count, 1, begun=begun)
        distances.append(np.sqrt(np.square(made - same).mean(axis=(1, 2, 3))))
    # One step of a thousand adds 0.03 standard deviations of noise to the latents.
    assert distances[0].max() < 0.02, distances[0]
    for less, more in itertools.pairwise(distances):
        rise = more - less
        half = 2.571 * rise.std(ddof=1) / np.sqrt(count)  # Student's t of 5 degrees of freedom
        assert rise.mean() - half > 0, f"{rise.mean():.3f} +- {half:.3f}"


@pytest.mark.parametrize(
    ("scheduler", "schedule"),
    [*((name, None) for name in SCHEDULERS), ("euler", "karras"), ("dpmsolver", "karras")],
)
def test_every_sampler_begins_in_the_midst_of_its_schedule(
    model_folder: Path, tmp_path: Path, scheduler: str, schedule: str | None
) -> None:
    sources = pictures(tmp_path, 16)
    begun = [sources.load(number) for number in range(2)]
    requests = [ImageRequest(number, "a lake", number) for number in range(2)]
    cfg = config(steps=12, guidance=1.0, scheduler=scheduler, schedule=schedule)
    pipeline = load_pipeline(model_folder, cfg, "cpu")
    near, far = (
        np.abs(
            sample_images(pipeline, requests, config(s, steps=12, guidance=1.0), 2, 1, begun=begun)
            - copies(pipeline, begun)
        ).mean()
        for s in (0.1, 1.0)
    )
    assert near < far, f"{near:.3f} {far:.3f}"


def test_an_image_is_encoded_to_the_mode_of_its_posterior_alone(
    family: tuple[Path, int], tmp_path: Path
) -> None:
    model, side = family
    pipeline, sources = load_pipeline(model, config(), "cpu"), pictures(tmp_path, side)
    one, again = latents_of(pipeline, sources.load(0)), latents_of(pipeline, sources.load(0))
    assert torch.equal(one, again)
    gray = torch.from_numpy(sources.load(0).levels).expand(1, 3, -1, -1) * 2 - 1
    with torch.no_grad():
        mean = pipeline.vae.encode(gray).latent_dist.mean
    torch.testing.assert_close(one, mean * pipeline.vae.config.scaling_factor)


def test_latents_of_an_autoencoder_with_moments_are_standardised(
    model_folder: Path, tmp_path: Path
) -> None:
    pipeline, sources = load_pipeline(model_folder, config(), "cpu"), pictures(tmp_path, 16)
    plain = latents_of(pipeline, sources.load(0))
    moments = {"latents_mean": [1.0] * 4, "latents_std": [2.0] * 4}
    pipeline.vae.register_to_config(**moments)
    factor = pipeline.vae.config.scaling_factor
    torch.testing.assert_close(latents_of(pipeline, sources.load(0)), (plain - factor) / 2)


@pytest.mark.parametrize(
    "law",
    [Normalisation("mu+3sigma", None, None, 1.0), Normalisation("db", None, None, 4.0, 0.02)],
    ids=lambda law: law.mode,
)
def test_local_mean_power_is_that_of_the_source_and_speckle_stays(law: Normalisation) -> None:
    rng = np.random.default_rng(0)
    layout = np.where(np.arange(64) < 32, 0.15, 0.5)[None, :].repeat(64, 0).astype(np.float32)
    speckle = rng.rayleigh(0.25 * law.top, (64, 64)).astype(np.float32)
    image = law.levels(speckle)[:, :, None].repeat(3, 2)
    source = law.levels(layout * law.top / 2)
    made = with_mean_power(image, source, law, 4.0)
    power = np.square(law.amplitudes(made[:, :, 0]).astype(np.float64))
    wanted = np.square(law.amplitudes(source).astype(np.float64))
    for half in (slice(0, 24), slice(40, 64)):
        assert 10 * np.log10(power[:, half].mean() / wanted[:, half].mean()) == pytest.approx(
            0, abs=0.3
        )
        looks = power[:, half].mean() ** 2 / power[:, half].var()
        assert looks == pytest.approx(1, abs=0.25)


def test_mean_power_is_kept_by_the_law_of_the_contract_only(
    model_folder: Path, tmp_path: Path
) -> None:
    sources, cfg = pictures(tmp_path, 16), config(keep=3.0)
    pipeline = load_pipeline(model_folder, cfg, "cpu")
    with pytest.raises(ConfigError, match=r"keep_mean_px needs .* only a contract"):
        generate(pipeline, cfg, sources)
    contract = PixelContract(normalisation=LawSpan("mu+3sigma", (1.0, 2.0)), tiles=1)
    [inputs, _] = plan_generation(cfg)
    given = {**inputs, "contract": contract.to_json()}
    made = generate_shard(0, given, cfg, pipeline, Provenance("m", "c"), sources=sources)
    for number, sample in enumerate(made.samples):
        validate_sample(sample)
        assert sample.meta["image_to_image"]["keep_mean_px"] == 3.0
        levels = decode_gray8(sample.members["sar.png"]) / 255
        wanted = np.square(sources.load(number).levels).mean()
        assert np.square(levels).mean() == pytest.approx(wanted, rel=0.15)


@pytest.fixture(scope="module")
def steered(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ControlNet whose last convolutions are not zero, as after training."""
    return save_with_controlnet(model_folder, tmp_path_factory.mktemp("steered") / "model")


def test_a_controlnet_steers_what_begins_with_an_image(
    steered: Path, model_folder: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    members = {
        "edges.png": encode_gray8(rng.integers(0, 256, (16, 16), np.uint8)),
        "meta.json": encode_json({}),
    }
    write_shard(tmp_path / "layers.tar", [Sample(sample_key(7, 0), members)])
    sources = pictures(tmp_path / "pictures", 16)

    def made(model: Path, steer: SteerConfig | None) -> list[bytes]:
        cfg = config(steer=steer)
        layers = None if steer is None else SteeringLayers([tmp_path / "layers.tar"], steer)
        samples = generate(load_pipeline(model, cfg, "cpu"), cfg, sources, layers=layers)
        return [sample.members["sar.png"] for sample in samples]

    off, on = made(steered, SteerConfig(scale=0.0)), made(steered, SteerConfig())
    assert off == made(model_folder, None), "at scale 0 the layer does nothing"
    assert all(one != other for one, other in zip(on, off, strict=True))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strength": 0.0}, "more than 0 and at most 1"),
        ({"strength": 1.01}, "more than 0 and at most 1"),
        ({"strength": -0.5}, "more than 0 and at most 1"),
        ({"strength": float("nan")}, "more than 0 and at most 1"),
        ({"strength": 0.2}, "less than one step: give at least 5 steps, or a strength of"),
        ({"guidance_rescale": 0.7}, "no such setting"),
        ({"sweep": SweepConfig(band=["X"])}, "sweep with generate.image_to_image: images"),
        ({"keep": 0.0}, "keep_mean_px is 0: give more than 0"),
        ({"keep": float("nan")}, "keep_mean_px is nan"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan_generation(config(**changes))


def test_a_shard_without_its_images_is_refused(pipeline: Any, model_folder: Path) -> None:
    cfg = config()
    [inputs, _] = plan_generation(cfg)
    made = load_pipeline(model_folder, cfg, "cpu")
    with pytest.raises(ConfigError, match="image_to_image is set, and there are no images"):
        generate_shard(0, inputs, cfg, made, Provenance("m", "c"))


def test_text_to_image_is_planned_as_before() -> None:
    assert all("first" not in shard for shard in plan_generation(config(image_to_image=None)))
