"""What leaves a training: full weights, a diffusers folder, validation grids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from training_ranks import (
    Job,
    enter_rank,
    finish,
    start,
    start_engine,
    step_folder,
    tiny_config,
    train_ranks,
)

from hpc.errors import VerificationError
from sarhpc.diffusion.bundle import load_bundle
from sarhpc.training.checkpoints.checkpointing import read_weights
from sarhpc.training.denoising.grids import read_index
from sarhpc.training.export import export

pytestmark = pytest.mark.slow

STAGES = [(0, "fp32"), (1, "fp32"), (1, "bf16"), (2, "bf16"), (3, "fp32"), (3, "bf16")]


def compare_ways_to_full_weights(job: Job, rank: int, world: int, port: int) -> None:
    """On every rank: our gather, DeepSpeed's own, and the reading of a checkpoint must agree."""
    from deepspeed.utils import safe_get_full_fp32_param

    from sarhpc.training.checkpoints import checkpointing
    from sarhpc.training.checkpoints.partition import gather
    from sarhpc.training.denoising.model import Denoiser
    from sarhpc.training.ranks import join, leave

    enter_rank(job, rank, world, port)
    ranks = join(1, deterministic=True, seed=0)
    for stage, precision in STAGES:
        bundle = load_bundle(job.base)
        cfg = tiny_config(zero_stage=stage, precision=precision)
        engine, partition = start_engine(cfg, Denoiser(bundle.family, bundle.models), ranks, 1)
        take_step(engine, seed=rank)
        names = [name for name, _ in engine.module.named_parameters()]
        gathered = gather(partition, partition.tensors, names)
        if stage > 0:
            for name, parameter in engine.module.named_parameters():
                assert torch.equal(safe_get_full_fp32_param(parameter).cpu(), gathered[name])
        folder = job.root / f"zero{stage}_{precision}"
        checkpointing.save(folder, engine, partition, ema=None)
        torch.distributed.barrier()
        from_disk = read_weights(folder, average=False)
        assert from_disk.keys() == gathered.keys()
        for name, tensor in gathered.items():
            assert torch.equal(from_disk[name], tensor), (stage, precision, name)
        engine.destroy()
    leave()


def take_step(engine: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(2, 4, 4, 4, generator=generator)
    tokens = torch.randint(0, 500, (2, 16), generator=generator)
    loss = engine(latents, torch.tensor([10, 900]), tokens).square().mean()
    engine.backward(loss)
    engine.step()


def test_gathered_weights_are_deepspeeds_own_and_those_on_disk(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    job = Job(tiny_bundle, tmp_path, tiny_config())
    assert finish(start(job, 2, compare_ways_to_full_weights)) == [0, 0]


@pytest.fixture(scope="module")
def trained(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Four steps of ZeRO-3 on two ranks, with a grid at step 0 and at the end."""
    cfg = tiny_config(zero_stage=3, max_steps=4, validation_every_steps=4)
    job = Job(tiny_bundle, tmp_path_factory.mktemp("trained"), cfg)
    assert train_ranks(job) == [0, 0]
    return job


@pytest.mark.parametrize("average", [True, False])
def test_export_equals_the_checkpoint_and_loads_in_the_pipeline(
    trained: Job, tmp_path: Path, average: bool
) -> None:
    from diffusers import StableDiffusionPipeline

    checkpoint = step_folder(trained, 4)
    facts = {"base_model": "tiny", "data": "random tiles", "licence": "Apache-2.0"}
    folder = export(
        checkpoint, load_bundle(trained.base), tmp_path / "model", facts, average=average
    )

    weights = read_weights(checkpoint, average=average)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    for group in ("unet", "text_encoder"):
        for name, parameter in getattr(pipeline, group).named_parameters():
            assert torch.equal(parameter, weights[f"{group}.{name}"]), name
    image = pipeline(
        "a forest",
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images[0]
    assert image.shape == (32, 32, 3)
    assert np.isfinite(image).all()
    card = (folder / "README.md").read_text()
    for fact in ("tiny", "random tiles", "Apache-2.0"):
        assert fact in card


def test_export_of_another_architecture_is_refused(trained: Job, tmp_path: Path) -> None:
    from sarhpc.diffusion.bundle import Bundle, new_bundle, save_bundle
    from sarhpc.diffusion.config import BundleConfig, TextShape, UNetShape

    base: Bundle = load_bundle(trained.base)
    shapes = BundleConfig(
        unet=UNetShape(4, [8], [True], attention_heads=2, norm_groups=4),
        text=TextShape(hidden=16, layers=2, heads=2, intermediate=32, positions=16),
    )
    save_bundle(new_bundle(shapes, base.tokenizers[0]), tmp_path / "other")

    with pytest.raises(VerificationError, match="do not fit the base model's unet"):
        export(
            step_folder(trained, 4),
            load_bundle(tmp_path / "other"),
            tmp_path / "out",
            {},
            average=True,
        )
    assert not (tmp_path / "out").exists()


def test_checkpoint_without_a_ranks_layout_is_not_exported(trained: Job, tmp_path: Path) -> None:
    import shutil

    torn = tmp_path / "torn"
    shutil.copytree(step_folder(trained, 4), torn)
    (torn / "layout" / "rank_00001.json").unlink()

    with pytest.raises(VerificationError, match="numbers of"):
        export(torn, load_bundle(trained.base), tmp_path / "out", {}, average=True)


def test_grids_stand_in_the_index_and_show_the_weights_of_their_step(trained: Job) -> None:
    folder = trained.root / "validation"
    images = read_index(folder)
    assert [(image["step"], image["prompt"], image["seed"]) for image in images] == [
        (step, prompt, 3) for step in (0, 4) for prompt in ("a forest", "a village")
    ]
    pixels = [np.asarray(Image.open(folder / image["path"])) for image in images]
    assert {array.shape for array in pixels} == {(32, 32, 3)}
    before, after = pixels[0].astype(int), pixels[2].astype(int)
    assert np.abs(before - after).max() > 0
    progress = np.asarray(Image.open(folder / "progress.png"))
    gray = np.asarray(Image.open(folder / images[3]["path"]).convert("L"))
    corner = progress[-132:-4, -132:-4]  # the last prompt after the last step, four times as large
    assert np.array_equal(corner, gray.repeat(4, axis=0).repeat(4, axis=1))


def test_a_grid_does_not_depend_on_the_number_of_ranks(
    trained: Job, tiny_bundle: Path, tmp_path: Path
) -> None:
    alone = Job(tiny_bundle, tmp_path, tiny_config(max_steps=0, validation_every_steps=4))
    assert train_ranks(alone, world=1) == [0]
    for image in read_index(tmp_path / "validation"):
        path = Path("validation") / image["path"]
        assert (tmp_path / path).read_bytes() == (trained.root / path).read_bytes()
    assert len(read_index(tmp_path / "validation")) == 2
