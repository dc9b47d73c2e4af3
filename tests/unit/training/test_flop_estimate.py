"""What a step takes, counted without numbers, is what it takes with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from sarhpc.diffusion.config import AdapterConfig, ControlConfig, TokenConfig
from sarhpc.training.config import TrainConfig
from sarhpc.training.denoising.model import Denoiser, checkpoint_gradients
from sarhpc.training.denoising.start import load_base
from sarhpc.training.estimate.operations import estimate_flops, image_flops

pytestmark = pytest.mark.slow

EMBEDDED = Path(__file__).resolve().parents[3] / "sarhpc" / "embedded" / "base"


def config(**changes: object) -> TrainConfig:
    return TrainConfig(**{"precision": "fp32", "micro_batch": 4, **changes})  # type: ignore[arg-type]


def allocated_bytes(cfg: TrainConfig, px: int) -> int:
    """Most bytes that torch's allocator held at once in a real step, beside the weights."""
    bundle = load_base(cfg, EMBEDDED)
    model = Denoiser(bundle.family, bundle.models).train()
    if cfg.gradient_checkpointing:
        checkpoint_gradients(model)
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    inputs = (
        torch.randn(cfg.micro_batch, 4, px // 8, px // 8),
        torch.zeros(cfg.micro_batch, dtype=torch.int64),
        torch.zeros(cfg.micro_batch, 40, dtype=torch.int64),
    )
    model(*inputs).square().mean().backward()  # libraries allocate for themselves once
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        model(*inputs).square().mean().backward()
    assert profiled.profiler is not None
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_what_the_allocator_held(checkpointing: bool) -> None:
    cfg = config(gradient_checkpointing=checkpointing)
    counted = estimate_flops(cfg, EMBEDDED, 128).activation_bytes
    assert counted == pytest.approx(allocated_bytes(cfg, 128), rel=0.1)


def test_checkpointing_keeps_less_and_repeats_forward_passes_only() -> None:
    plain, saving = (
        estimate_flops(config(gradient_checkpointing=on), EMBEDDED, 128) for on in (False, True)
    )
    assert saving.activation_bytes < 0.6 * plain.activation_bytes
    assert saving.image_flops == plain.image_flops == plain.done_flops
    assert 1.15 < saving.done_flops / saving.image_flops < 1.34


def test_stable_diffusion_takes_the_published_operations() -> None:
    cfg = TrainConfig(gradient_checkpointing=True)
    counted = estimate_flops(cfg, Path("stable-diffusion-v1-5"), 512)
    # 2406.8 GFLOP of the U-Net and three times 13.3 of the text encoder.
    assert counted.image_flops == pytest.approx(2446.7e9, rel=2e-3)
    assert counted.encode_flops == pytest.approx(1116.7e9, rel=1e-3)
    assert counted.learned == counted.parameters == 982_581_444


def test_an_adapter_learns_little_and_needs_less_arithmetic() -> None:
    full = estimate_flops(config(), EMBEDDED, 128)
    adapted = estimate_flops(config(adapter=AdapterConfig(rank=4)), EMBEDDED, 128)
    assert adapted.learned < 0.05 * full.learned
    assert adapted.parameters == full.parameters + adapted.learned
    assert adapted.image_flops < 0.9 * full.image_flops


@pytest.mark.parametrize("kind", ["lora", "locon", "loha", "lokr"])
def test_every_kind_of_adapter_is_counted(kind: str) -> None:
    counted = estimate_flops(config(adapter=AdapterConfig(kind=kind, rank=4)), EMBEDDED, 128)
    assert 0 < counted.learned < counted.parameters / 4
    assert counted.image_flops > 0


def test_a_token_alone_carries_gradients_through_models_that_stand_still() -> None:
    """No weight gets a gradient, so one of the two products of the backward pass is left."""
    token = TokenConfig(initializer="forest", lr=1e-3)
    alone = estimate_flops(config(token=token, lr_unet=0.0, lr_text_encoder=0.0), EMBEDDED, 128)
    full = estimate_flops(config(), EMBEDDED, 128)
    assert alone.learned == 0
    assert alone.image_flops / full.image_flops == pytest.approx(2 / 3, rel=0.1)


def test_a_controlnet_is_what_learns_beside_a_model_that_stands_still() -> None:
    plain, steered = (
        estimate_flops(config(control=control), EMBEDDED, 128)
        for control in (None, ControlConfig())
    )
    assert steered.learned == steered.parameters - plain.parameters > 0
    # Both run; the U-Net's encoder and its weights need no backward pass.
    assert plain.image_flops < steered.image_flops < 2 * plain.image_flops


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient_checkpointing": True, "precision": "bf16"},
        {"adapter": AdapterConfig(kind="loha", rank=4)},
        {"token": TokenConfig(initializer="forest", lr=1e-3), "lr_unet": 0.0},
        {"control": ControlConfig()},
    ],
)
def test_operations_counted_alone_are_those_of_the_estimate(changes: dict[str, object]) -> None:
    cfg = config(**changes)
    whole = estimate_flops(cfg, EMBEDDED, 128).image_flops
    # A kernel of attention makes the gradient of queries that none is asked for; here it does not.
    assert 0.995 * whole < image_flops(cfg, EMBEDDED, 128) <= whole
