"""Every option of the objective changes what it says, by as much as it says."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler

from sarhpc.diffusion import objective
from sarhpc.diffusion.config import ObjectiveConfig

SHAPE = (4, 6, 6)
NAMES = [f"{number:011d}" for number in range(400)]


def scheduler_of(prediction_type: str = "epsilon") -> DDPMScheduler:
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        prediction_type=prediction_type, clip_sample=False,
    )  # fmt: skip


def drawn(
    cfg: ObjectiveConfig | None = None, names: list[str] = NAMES, timesteps: int = 1000
) -> objective.Draw:
    return objective.draw(
        names, seed=3, epoch=0, shape=SHAPE, cfg=cfg or ObjectiveConfig(), train_timesteps=timesteps
    )


def at_steps(*steps: int) -> objective.Draw:
    """Choices of that many samples at those steps."""
    draw = drawn(names=NAMES[: len(steps)])
    return objective.Draw(torch.tensor(steps), draw.noise, draw.latent_noise, draw.dropped)


@pytest.mark.parametrize("timesteps", [1, 2, 5])
def test_every_timestep_is_drawn_the_first_and_the_last_too(timesteps: int) -> None:
    found = drawn(timesteps=timesteps).timesteps
    assert set(found.tolist()) == set(range(timesteps))
    counts = torch.bincount(found).float() / len(NAMES)
    assert float((counts - 1 / timesteps).abs().max()) < 0.08


@pytest.mark.parametrize("offset", [0.1, 0.5])
def test_the_noise_offset_is_the_spread_of_channel_means_that_are_added(offset: float) -> None:
    shift = drawn(ObjectiveConfig(noise_offset=offset)).noise - drawn().noise
    means = shift.mean((2, 3))
    assert torch.allclose(shift, means[:, :, None, None].expand_as(shift), atol=1e-5)
    assert float(means.std()) == pytest.approx(offset, rel=0.08)
    assert abs(float(means.mean())) < 0.1 * offset
    # Each channel of a sample has its own.
    assert abs(float(torch.corrcoef(means.T)[0, 1])) < 0.2


def test_an_offset_moves_nothing_but_the_noise() -> None:
    plain, moved = drawn(), drawn(ObjectiveConfig(noise_offset=0.3))
    assert torch.equal(plain.timesteps, moved.timesteps)
    assert torch.equal(plain.latent_noise, moved.latent_noise)
    assert plain.dropped == moved.dropped


STEPS = (0, 50, 300, 700, 999)


@pytest.mark.parametrize("gamma", [1.0, 5.0, 1e9])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_gamma_weighs_the_loss_of_each_sample(kind: str, gamma: float) -> None:
    scheduler, draw = scheduler_of(kind), at_steps(*STEPS)
    latents = torch.randn(len(STEPS), *SHAPE, generator=torch.Generator().manual_seed(1))
    answer = objective.target(scheduler, latents, draw) + 2.0
    plain = objective.loss_per_sample(scheduler, answer, latents, draw, ObjectiveConfig())
    torch.testing.assert_close(plain, torch.full((len(STEPS),), 4.0))
    cfg = ObjectiveConfig(min_snr_gamma=gamma)
    weighed = objective.loss_per_sample(scheduler, answer, latents, draw, cfg)
    for step, loss in zip(STEPS, weighed.tolist(), strict=True):
        alpha_bar = float(scheduler.alphas_cumprod[step])
        snr = alpha_bar / (1 - alpha_bar)
        weight = min(snr, gamma) / (snr if kind == "epsilon" else snr + 1)
        assert loss == pytest.approx(4.0 * weight, rel=1e-4)


def test_noise_is_added_in_float32_whatever_the_latents_are() -> None:
    scheduler, draw = scheduler_of(), at_steps(*STEPS)
    latents = torch.randn(len(STEPS), *SHAPE, generator=torch.Generator().manual_seed(1))
    half = latents.to(torch.bfloat16)
    found = objective.add_noise(scheduler, half, draw)
    for sample, step in enumerate(STEPS):
        alpha_bar = float(scheduler.alphas_cumprod[step])
        exact = math.sqrt(alpha_bar) * half[sample].double()
        exact += math.sqrt(1 - alpha_bar) * draw.noise[sample].double()
        # One rounding at the end: within half a unit in the last place of bfloat16.
        assert torch.all((found[sample].double() - exact).abs() <= exact.abs() * 2**-8 + 1e-6)


def test_the_target_and_the_errors_of_half_precision_latents_are_float32() -> None:
    scheduler, draw = scheduler_of("v_prediction"), at_steps(*STEPS)
    half = torch.randn(len(STEPS), *SHAPE).to(torch.bfloat16)
    target = objective.target(scheduler, half, draw)
    assert target.dtype == torch.float32
    torch.testing.assert_close(target, objective.target(scheduler, half.float(), draw))
    answer = target.to(torch.bfloat16)
    loss = objective.loss_per_sample(scheduler, answer, half, draw, ObjectiveConfig())
    torch.testing.assert_close(loss, ((answer.float() - target) ** 2).mean((1, 2, 3)))


def test_the_loss_of_a_sample_is_the_mean_over_its_own_elements() -> None:
    scheduler, draw = scheduler_of(), at_steps(10, 20)
    answer = draw.noise.clone()
    answer[1, 2, 3, 4] += 12.0
    loss = objective.loss_per_sample(
        scheduler, answer, torch.zeros_like(answer), draw, ObjectiveConfig()
    )
    torch.testing.assert_close(loss, torch.tensor([0.0, 144 / (4 * 6 * 6)]))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_captions_are_dropped_by_their_share(share: float) -> None:
    dropped = drawn(ObjectiveConfig(caption_dropout=share)).dropped
    assert sum(dropped) / len(dropped) == pytest.approx(share, abs=0.06)


def test_a_caption_without_a_choice_is_an_error() -> None:
    for captions, dropped in ((["a", "b"], (True,)), (["a"], (True, False))):
        with pytest.raises(ValueError, match="argument 2"):
            objective.with_dropout(captions, dropped)


def test_seeds_are_the_same_on_every_machine_and_63_bits() -> None:
    assert objective.sample_seed(3, 0, NAMES[0]) == 4_581_559_388_804_902_594
    seeds = [objective.sample_seed(3, 0, name) for name in NAMES]
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert max(seeds) > 1 << 62
