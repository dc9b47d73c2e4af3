from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpc.errors import ConfigError, DataError
from sarhpc.generation.config import GenerateConfig, SteerConfig
from sarhpc.generation.image_shard import (
    GeneratedShard,
    GenerationStoppedError,
    Provenance,
    generate_shard,
)
from sarhpc.generation.model import load_pipeline
from sarhpc.generation.plan import plan_generation
from sarhpc.shards.contract import sigma0_db
from sarhpc.shards.images import decode_array, decode_gray8
from sarhpc.shards.radiometry import master_amplitude
from sarhpc.shards.sample import Sample
from sarhpc.shards.schema import validate_sample
from sarhpc.shards.tile_contract import contract_of_tiles

pytestmark = pytest.mark.slow

PROMPTS = ["a river", "a forest", "a town"]
PROVENANCE = Provenance("m" * 64, "c" * 64)


def config(**changes: Any) -> GenerateConfig:
    settings = {"prompts": PROMPTS, "images": 5, "steps": 3, "batch": 2, "scheduler": "ddim"}
    return GenerateConfig(**{**settings, **changes})


def generate(pipeline: Any, cfg: GenerateConfig, order: int = 1) -> list[Sample]:
    """All samples of the plan, its shards made in or against their order."""
    shards = list(enumerate(plan_generation(cfg)))[::order]
    made = {
        number: list(generate_shard(number, inputs, cfg, pipeline, PROVENANCE).samples)
        for number, inputs in shards
    }
    return [sample for number in sorted(made) for sample in made[number]]


def images(samples: list[Sample]) -> dict[tuple[str, int], bytes]:
    return {(s.meta["prompt"], s.meta["seed"]): s.members["sar.png"] for s in samples}


@pytest.fixture(scope="module")
def samples(pipeline: Any) -> list[Sample]:
    return generate(pipeline, config())


def test_samples_keep_the_schema_and_say_that_they_are_synthetic(samples):
    assert [sample.key for sample in samples] == [f"000000{index:05d}" for index in range(5)]
    for sample in samples:
        validate_sample(sample)
        assert sample.meta["synthetic"] is True
        assert sample.caption == sample.meta["prompt"]
        assert sample.meta["model_sha"] == PROVENANCE.model_sha
        assert sample.meta["config_fingerprint"] == PROVENANCE.config_fingerprint
        assert not {"crs", "affine", "footprint", "bbox"} & sample.meta.keys()


def test_images_are_images_and_differ(samples):
    pixels = [decode_gray8(sample.members["sar.png"]) for sample in samples]
    assert {image.shape for image in pixels} == {(16, 16)}
    assert all(image.std() > 1 for image in pixels)
    assert len({image.tobytes() for image in pixels}) == 5


def first_in_colour(pipeline, samples):
    """The first image (H, W, 3) as the pipeline decodes it, another beside it in the batch."""
    generator = torch.Generator("cpu").manual_seed(samples[0].meta["seed"])
    other = torch.Generator("cpu").manual_seed(1)
    return pipeline(
        [samples[0].meta["prompt"], "other"],
        negative_prompt=["", ""],
        num_inference_steps=3,
        generator=[generator, other],
        output_type="np",
    ).images[0]


def test_gray_is_the_mean_of_the_channels_and_their_spread_is_recorded(pipeline, samples):
    colour = first_in_colour(pipeline, samples)
    gray = decode_gray8(samples[0].members["sar.png"])
    np.testing.assert_allclose(gray / 255, colour.mean(axis=2), atol=0.51 / 255)
    spread = (colour.max(axis=2) - colour.min(axis=2)).mean()
    assert samples[0].meta["channel_spread"] == pytest.approx(spread, abs=1e-6)
    assert spread > 0


def test_with_a_contract_the_same_images_keep_a_master_of_more_than_256_levels(pipeline, samples):
    contract = contract_of_tiles([TILE])
    cfg = config(shard_samples=2)
    planned = [{**inputs, "contract": contract.to_json()} for inputs in plan_generation(cfg)]
    made = [
        list(generate_shard(number, inputs, cfg, pipeline, PROVENANCE).samples)
        for number, inputs in list(enumerate(planned))[::-1]
    ]
    together = [s for shard in made[::-1] for s in shard]
    assert images(together) == images(samples), "the picture is what it was"
    colour = first_in_colour(pipeline, samples)
    master = decode_array(together[0].members["sar16.npy"])
    np.testing.assert_allclose(master / 65535, colour.mean(axis=2), atol=0.51 / 65535)
    for sample in together:
        validate_sample(sample)
        codes, picture = (decode_array(sample.members["sar16.npy"]),
                          decode_gray8(sample.members["sar.png"]))  # fmt: skip
        assert np.abs(codes / 257 - picture).max() <= 0.51
        assert (codes % 257 > 0).any(), "it went through 8 bits"
        np.testing.assert_allclose(
            20 * np.log10(master_amplitude(codes, sample.meta)),
            sigma0_db(codes, contract),
            atol=1e-4,
        )
    one_by_one = generate_shard(
        0, {**planned[0], "contract": contract.to_json()}, cfg, pipeline, PROVENANCE
    )
    assert list(one_by_one.samples) == together[:2]


TILE = {
    "scene_id": "a", "calibration": "sigma0", "pixel_m": 0.5, "incidence_deg": 40.0,
    "normalisation": {"mode": "db", "low": 0.01, "top": 10.0}, "range_direction": "+col",
}  # fmt: skip


def test_a_truncated_prompt_records_the_number_of_tokens_cut(pipeline: Any) -> None:
    reported = {"prompt_template": "{prompt}", "images": 2}
    whole = "a " * 74 + "river"  # 75 tokens, as many as are read
    made = generate(pipeline, config(prompts=[whole, f"{whole} beside a town"], **reported))
    assert "prompt_tokens_cut" not in made[0].meta
    assert made[1].meta["prompt_tokens_cut"] == 3


def test_the_same_plan_gives_the_same_bytes(pipeline, samples):
    assert generate(pipeline, config()) == samples


@pytest.mark.parametrize(
    "changes",
    [{"shard_samples": 2}, {"shard_samples": 3}, {"prompts": PROMPTS[::-1], "images": 6}],
)
@pytest.mark.parametrize("order", [1, -1])
def test_an_image_is_the_same_bits_whatever_shard_order_and_neighbours(
    pipeline, samples, changes, order
):
    other = images(generate(pipeline, config(**changes), order))
    mine = images(samples)
    assert len(mine.keys() & other.keys()) == 5
    assert all(other[name] == mine[name] for name in mine.keys() & other.keys())


def test_the_model_runs_with_one_batch_shape_and_one_thread_count(pipeline):
    seen = []

    def look(module: Any, arguments: tuple[Any, ...]) -> None:
        seen.append((tuple(arguments[0].shape), torch.get_num_threads()))

    before = torch.get_num_threads()
    hook = pipeline.unet.register_forward_pre_hook(look)
    try:
        made = generate(pipeline, config(images=5, batch=4, threads=3))
    finally:
        hook.remove()
    # Guidance doubles the batch: with and without the prompt.
    assert set(seen) == {((8, 4, 8, 8), 3)}
    assert torch.get_num_threads() == before
    assert [(s.meta["batch"], s.meta["threads"]) for s in made] == [(4, 3)] * 5


def test_an_image_that_is_not_finite_is_left_out_with_a_reason(pipeline, samples):
    calls = []

    def spoil(module: Any, arguments: Any, output: torch.Tensor) -> torch.Tensor:
        calls.append(output.shape[0])
        return output * float("nan") if len(calls) == 2 else output

    cfg = config()
    hook = pipeline.vae.decoder.register_forward_hook(spoil)
    try:
        shard = generate_shard(0, plan_generation(cfg)[0], cfg, pipeline, PROVENANCE)
        made = list(shard.samples)
    finally:
        hook.remove()
    assert shard.rejected == {"not_finite": 1}
    assert made == [samples[0], *samples[2:]]
    assert set(calls) == {1}, "images are decoded one at a time, which bounds the memory"


def test_a_stop_between_batches_abandons_the_shard(pipeline):
    cfg = config()
    asked = iter([False, True])
    shard = generate_shard(
        0, plan_generation(cfg)[0], cfg, pipeline, PROVENANCE, lambda: next(asked)
    )
    assert isinstance(shard, GeneratedShard)
    made = []
    with pytest.raises(GenerationStoppedError, match="resume"):
        for sample in shard.samples:
            made.append(sample.key)
    assert made == ["00000000000", "00000000001"][: len(made)], "none of the second batch"


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpmsolver", "pndm"])
def test_every_scheduler_is_deterministic_and_recorded(model_folder, scheduler):
    cfg = config(images=2, scheduler=scheduler, shard_samples=1)
    pipeline = load_pipeline(model_folder, cfg, "cpu")
    first = generate(pipeline, cfg)
    assert {sample.meta["scheduler"] for sample in first} == {scheduler}
    assert generate(pipeline, cfg, -1) == first


def test_size_and_dtype_follow_the_configuration(model_folder):
    cfg = config(images=1, height_px=16, width_px=32, dtype="bfloat16", batch=1)
    pipeline = load_pipeline(model_folder, cfg, "cpu")
    assert {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype} == {
        torch.bfloat16
    }
    (sample,) = generate(pipeline, cfg)
    assert decode_gray8(sample.members["sar.png"]).shape == (16, 32)
    assert sample.meta["dtype"] == "bfloat16"


@pytest.mark.parametrize("changes", [{"scheduler": "euler"}, {"dtype": "float16"}])
def test_a_pipeline_loaded_for_another_configuration_is_refused(pipeline, changes):
    cfg = config(**changes)
    with pytest.raises(ConfigError, match="load it with the configuration"):
        generate_shard(0, plan_generation(cfg)[0], cfg, pipeline, PROVENANCE)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(DataError, match="export one first"):
        load_pipeline(tmp_path, config(), "cpu")


def test_a_model_with_pickled_weights_is_refused(model_folder, tmp_path):
    copy = tmp_path / "pickled"
    copy_folder(model_folder, copy)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({"weight": torch.zeros(1)}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(DataError, match="safetensors"):
        load_pipeline(copy, config(), "cpu")


def copy_folder(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            to = target / path.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(path.read_bytes())


def test_rescaled_guidance_changes_and_is_recorded_in_images_and_unset_changes_no_byte(
    pipeline: Any, samples: list[Sample]
) -> None:
    strong = config(guidance=15.0)
    plain, rescaled = (
        generate(pipeline, strong),
        generate(pipeline, config(guidance=15.0, guidance_rescale=0.7)),
    )
    assert [sample.meta.get("guidance_rescale") for sample in (*samples, *plain)] == [None] * 10
    assert [sample.meta["guidance_rescale"] for sample in rescaled] == [0.7] * 5
    assert images(rescaled).keys() == images(plain).keys()
    assert all(images(rescaled)[asked] != image for asked, image in images(plain).items())


def test_an_invalid_rescaling_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"guidance_rescale is 1\.5"):
        plan_generation(config(guidance_rescale=1.5))
    with pytest.raises(ConfigError, match=r"guidance_rescale with generate\.steer"):
        plan_generation(config(guidance_rescale=0.7, steer=SteerConfig()))
