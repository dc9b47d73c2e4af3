"""The objective's random choices belong to the sample, and its targets to the scheduler."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from hpc.errors import ConfigError
from sarhpc.diffusion import objective
from sarhpc.diffusion.architecture import new_scheduler
from sarhpc.diffusion.config import ObjectiveConfig, SchedulerShape

SHAPE = (4, 8, 8)
NAMES = [f"{number:011d}" for number in range(12)]


def _scheduler(prediction_type: str, *, zero_snr: bool = False) -> DDPMScheduler:
    return DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        rescale_betas_zero_snr=zero_snr,
        clip_sample=False,
    )


def _draw(names: list[str], epoch: int = 0, **settings: float) -> objective.Draw:
    cfg = ObjectiveConfig(**settings)  # type: ignore[arg-type]
    return objective.draw(names, seed=3, epoch=epoch, shape=SHAPE, cfg=cfg)


@pytest.mark.parametrize("layout", [[12], [1] * 12, [5, 7], [3, 3, 6]])
def test_a_sample_draws_the_same_in_any_batch_layout(layout: list[int]) -> None:
    whole = _draw(NAMES)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1)).tolist()
    at = 0
    for size in layout:
        members = order[at : at + size]
        at += size
        part = _draw([NAMES[member] for member in members])
        assert torch.equal(part.timesteps, whole.timesteps[members])
        assert torch.equal(part.noise, whole.noise[members])
        assert torch.equal(part.latent_noise, whole.latent_noise[members])
        assert part.dropped == tuple(whole.dropped[member] for member in members)


def test_epochs_seeds_and_samples_draw_differently() -> None:
    first, again = _draw(NAMES), _draw(NAMES, epoch=1)
    other = objective.draw(NAMES, seed=4, epoch=0, shape=SHAPE, cfg=ObjectiveConfig())
    for one in (again, other):
        assert not torch.equal(first.timesteps, one.timesteps)
        assert not torch.isclose(first.noise, one.noise).any(0).all()
    assert not torch.equal(first.noise[0], first.noise[1])
    assert not torch.equal(first.noise, first.latent_noise)


def test_captions_are_dropped_at_the_configured_rate() -> None:
    names = [f"{number:011d}" for number in range(4000)]
    kept = objective.draw(
        names, seed=0, epoch=0, shape=(1, 1, 1), cfg=ObjectiveConfig(caption_dropout=0.1)
    )
    assert 0.08 < sum(kept.dropped) / len(names) < 0.12
    assert not any(_draw(NAMES, caption_dropout=0.0).dropped)
    assert all(_draw(NAMES, caption_dropout=1.0).dropped)
    assert objective.with_dropout(["a", "b"], (True, False)) == ["", "b"]


def test_changing_the_dropout_rate_leaves_the_noise_alone() -> None:
    never, always = _draw(NAMES, caption_dropout=0.0), _draw(NAMES, caption_dropout=1.0)
    assert torch.equal(never.noise, always.noise)
    assert torch.equal(never.timesteps, always.timesteps)


def test_timesteps_and_noise_have_the_right_distribution() -> None:
    names = [f"{number:011d}" for number in range(3000)]
    many = objective.draw(names, seed=0, epoch=0, shape=SHAPE, cfg=ObjectiveConfig())
    assert many.timesteps.min() >= 0
    assert many.timesteps.max() <= 999
    assert abs(float(many.timesteps.float().mean()) - 499.5) < 20
    assert abs(float(many.noise.mean())) < 0.01
    assert abs(float(many.noise.std()) - 1) < 0.01


def test_noise_offset_moves_the_mean_of_whole_channels() -> None:
    plain, offset = _draw(NAMES), _draw(NAMES, noise_offset=0.5)
    shift = offset.noise - plain.noise
    assert torch.allclose(shift, shift.mean((2, 3), keepdim=True).expand_as(shift), atol=1e-6)
    assert float(shift.std()) > 0.2


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_noising_and_target_agree_with_the_scheduler(prediction_type: str) -> None:
    scheduler = _scheduler(prediction_type)
    latents = torch.randn(12, *SHAPE, generator=torch.Generator().manual_seed(0))
    draw = _draw(NAMES)
    noisy = objective.add_noise(scheduler, latents, draw)
    torch.testing.assert_close(noisy, scheduler.add_noise(latents, draw.noise, draw.timesteps))
    target = objective.target(scheduler, latents, draw)
    if prediction_type == "v_prediction":
        velocity = scheduler.get_velocity(latents, draw.noise, draw.timesteps)
        torch.testing.assert_close(target, velocity)
    else:
        assert torch.equal(target, draw.noise)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_lets_the_sampler_recover_the_latents(prediction_type: str) -> None:
    sampler = DDIMScheduler.from_config(_scheduler(prediction_type).config)
    sampler.set_timesteps(50)
    latents = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    draw = _draw(NAMES[:1])
    noisy = objective.add_noise(sampler, latents, draw)
    answer = objective.target(sampler, latents, draw)
    step = sampler.step(answer, int(draw.timesteps[0]), noisy)
    torch.testing.assert_close(step.pred_original_sample, latents, atol=2e-4, rtol=2e-3)


def test_the_schedule_is_the_published_one_and_can_have_zero_terminal_snr() -> None:
    plain = new_scheduler(SchedulerShape()).alphas_cumprod.double()
    # Lin et al. (arXiv:2305.08891), table 1, Stable Diffusion: SNR 0.004682 at the last step.
    assert float(plain[-1].sqrt()) == pytest.approx(0.068265, abs=2e-5)
    assert float(plain[-1] / (1 - plain[-1])) == pytest.approx(0.004682, abs=3e-6)

    shape = SchedulerShape(prediction_type="v_prediction", zero_terminal_snr=True)
    rescaled = new_scheduler(shape)
    # Their algorithm 1: shift the roots so that the last is 0, stretch so that the first stays.
    first, last = float(plain[0].sqrt()), float(plain[-1].sqrt())
    wanted = (plain.sqrt() - last) * first / (first - last)
    found = torch.cumprod(1 - rescaled.betas.double(), 0).sqrt()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert float(rescaled.betas[-1]) == 1.0
    rescaled.set_timesteps(20)
    assert int(rescaled.timesteps[0]) == 999, "sampling starts where there is no signal"


def test_min_snr_weighs_the_error_of_the_image_alike_for_both_targets() -> None:
    # With x0 = (z - s*eps)/a and x0 = a*z - s*v: |d x0|^2 = |d eps|^2/SNR = |d v|^2 * s^2.
    timesteps = torch.tensor([0, 10, 200, 500, 999])
    epsilon, velocity = _scheduler("epsilon"), _scheduler("v_prediction")
    alpha_bar = epsilon.alphas_cumprod[timesteps].double()
    snr = alpha_bar / (1 - alpha_bar)
    expected = snr.clamp(max=5.0)
    from_epsilon = objective.min_snr_weights(epsilon, timesteps, 5.0) * snr
    from_velocity = objective.min_snr_weights(velocity, timesteps, 5.0) / (1 - alpha_bar)
    torch.testing.assert_close(from_epsilon, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(from_velocity, expected, rtol=1e-4, atol=1e-6)


def test_min_snr_is_finite_at_zero_terminal_snr() -> None:
    last = torch.tensor([999])
    velocity = _scheduler("v_prediction", zero_snr=True)
    velocity.alphas_cumprod[-1] = 0.0
    assert objective.min_snr_weights(velocity, last, 5.0).tolist() == [0.0]
    epsilon = _scheduler("epsilon")
    epsilon.alphas_cumprod[-1] = 0.0
    assert objective.min_snr_weights(epsilon, last, 5.0).tolist() == [1.0]


def test_the_loss_of_a_sample_does_not_depend_on_its_batch() -> None:
    scheduler = _scheduler("v_prediction")
    latents = torch.randn(12, *SHAPE, generator=torch.Generator().manual_seed(0))
    answer = torch.randn(12, *SHAPE, generator=torch.Generator().manual_seed(1))
    cfg = ObjectiveConfig(min_snr_gamma=5.0)
    whole = objective.loss_per_sample(scheduler, answer, latents, _draw(NAMES), cfg)
    assert whole.shape == (12,)
    for at, name in enumerate(NAMES):
        one = (answer[at : at + 1], latents[at : at + 1], _draw([name]))
        assert torch.equal(objective.loss_per_sample(scheduler, *one, cfg), whole[at : at + 1])


def test_the_loss_is_the_mean_squared_error_and_vanishes_at_the_target() -> None:
    scheduler = _scheduler("epsilon")
    latents, draw = torch.zeros(12, *SHAPE), _draw(NAMES)
    cfg = ObjectiveConfig()
    off_by_two = objective.loss_per_sample(scheduler, draw.noise + 2, latents, draw, cfg)
    torch.testing.assert_close(off_by_two, torch.full((12,), 4.0))
    assert not objective.loss_per_sample(scheduler, draw.noise, latents, draw, cfg).any()


def test_half_precision_latents_give_a_float32_loss() -> None:
    scheduler = _scheduler("epsilon")
    latents, draw = torch.zeros(12, *SHAPE, dtype=torch.bfloat16), _draw(NAMES)
    assert objective.add_noise(scheduler, latents, draw).dtype == torch.bfloat16
    answer = draw.noise.to(torch.bfloat16)
    loss = objective.loss_per_sample(scheduler, answer, latents, draw, ObjectiveConfig())
    assert loss.dtype == torch.float32


def test_other_prediction_types_are_refused() -> None:
    with pytest.raises(ConfigError, match="sample"):
        objective.prediction_type(_scheduler("sample"))
