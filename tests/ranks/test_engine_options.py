"""What makes the engine faster or smaller leaves what it learns as it is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_exact_resume import assert_same_end, run_with_kill
from training_ranks import Job, step_folder, tiny_config, train_ranks

from sarhpc.diffusion.bundle import load_bundle
from sarhpc.training.checkpoints.checkpointing import read_weights
from sarhpc.training.config import OffloadConfig
from sarhpc.training.denoising.model import Denoiser, put_channels_last

pytestmark = pytest.mark.slow

STEPS = 3
CPU = OffloadConfig()
ALL_ON_CPU = OffloadConfig(parameters="cpu")


def trained(base: Path, root: Path, **changes: Any) -> Job:
    job = Job(base, root, tiny_config(max_steps=STEPS, **changes))
    assert train_ranks(job) == [0, 0]
    return job


def losses(job: Job) -> list[float]:
    rows = (job.root / "metrics.jsonl").read_text().splitlines()
    return [json.loads(row)["loss"] for row in rows]


def largest_difference(one: Job, other: Job) -> float:
    weights, others = (read_weights(step_folder(j, STEPS), average=False) for j in (one, other))
    return max(float((weights[name] - others[name]).abs().max()) for name in weights)


OPTIONS = [
    pytest.param(2, "fp32", {"channels_last": True, "fused_optimizer": True}, id="layout-fused"),
    pytest.param(2, "bf16", {"offload": CPU}, id="zero2-offload"),
    pytest.param(3, "bf16", {"offload": ALL_ON_CPU}, id="zero3-all-offloaded"),
    pytest.param(1, "bf16", {"offload": CPU}, id="zero1-offload", marks=pytest.mark.long),
    pytest.param(
        3,
        "fp32",
        {"offload": OffloadConfig(optimizer="none", parameters="cpu")},
        id="zero3-weights-offloaded",
        marks=pytest.mark.long,
    ),
]


@pytest.mark.parametrize(("stage", "precision", "options"), OPTIONS)
def test_three_steps_are_those_of_the_plain_engine(
    tiny_bundle: Path, tmp_path: Path, stage: int, precision: str, options: dict[str, Any]
) -> None:
    changes = {"zero_stage": stage, "precision": precision}
    plain = trained(tiny_bundle, tmp_path / "plain", **changes)
    other = trained(tiny_bundle, tmp_path / "other", **changes, **options)
    assert losses(other) == pytest.approx(losses(plain), rel=1e-6)
    # The rate is 1e-3: a gradient or a moment that went astray would move a weight by as much.
    assert largest_difference(plain, other) < 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {
                "zero_stage": 2,
                "offload": CPU,
                "fused_optimizer": True,
                "channels_last": True,
            },
            id="zero2-offload-fused",
        ),
        pytest.param(
            {"zero_stage": 3, "precision": "bf16", "offload": ALL_ON_CPU},
            id="zero3-all-offloaded",
            marks=pytest.mark.long,
        ),
    ],
)
def test_killed_and_resumed_equals_undisturbed(
    tiny_bundle: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    faults = {1: "training.after_step:3:kill"}
    whole, resumed = run_with_kill(tiny_bundle, tmp_path, faults, steps=4, every=2, **changes)
    assert_same_end(whole, resumed, 4)


@pytest.mark.parametrize(
    ("stage", "offload"), [(2, CPU), pytest.param(3, ALL_ON_CPU, marks=pytest.mark.long)]
)
def test_an_offloaded_training_goes_on_with_another_number_of_ranks(
    tiny_bundle: Path, tmp_path: Path, stage: int, offload: OffloadConfig
) -> None:
    cfg = tiny_config(max_steps=STEPS, zero_stage=stage, offload=offload, fused_optimizer=True)
    whole = trained(
        tiny_bundle, tmp_path / "whole", zero_stage=stage, offload=offload, fused_optimizer=True
    )
    for attempt, (world, steps) in enumerate([(2, 2), (1, STEPS)], 1):
        part = dataclasses.replace(cfg, max_steps=steps)
        job = Job(tiny_bundle, tmp_path / "parts", part, attempt=attempt)
        assert train_ranks(job, world) == [0] * world
    assert losses(job) == pytest.approx(losses(whole), rel=1e-5)
    assert largest_difference(whole, job) < 1e-5


def test_channels_last_reaches_every_block_of_the_unet(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    model = Denoiser(bundle.family, bundle.models)
    put_channels_last(model)
    seen: list[bool] = []

    def note(_module: Any, _inputs: Any, output: Any) -> None:
        image = output[0] if isinstance(output, tuple) else output
        seen.append(image.is_contiguous(memory_format=torch.channels_last))

    for block in (model.unet.conv_in, *model.unet.down_blocks, model.unet.mid_block):
        block.register_forward_hook(note)
    for block in model.unet.up_blocks:
        block.register_forward_hook(note)
    model(torch.randn(2, 4, 4, 4), torch.zeros(2), torch.zeros(2, 16, dtype=torch.int64))
    assert len(seen) == 6
    assert all(seen)
