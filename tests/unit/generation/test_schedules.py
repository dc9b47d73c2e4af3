"""Noise schedules of sampling: what each sampler of diffusers follows, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hpc.errors import ConfigError
from sarhpc.diffusion.architecture import new_scheduler
from sarhpc.diffusion.config import SchedulerShape
from sarhpc.diffusion.unblocked_sampling import step_on_cpu
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.model import new_sampler
from sarhpc.generation.plan import check_config
from sarhpc.generation.schedules import (
    SCHEDULERS,
    SCHEDULES,
    check_model_schedule,
    check_schedule,
    schedule_options,
)

PAIRS = [(scheduler, schedule) for scheduler in SCHEDULERS for schedule in SCHEDULES]


def config(scheduler: str, schedule: str | None, **changes: Any) -> GenerateConfig:
    return GenerateConfig(prompts=["a lake"], scheduler=scheduler, schedule=schedule, **changes)


def is_taken(scheduler: str, schedule: str) -> bool:
    try:
        check_schedule(config(scheduler, schedule))
    except ConfigError:
        return False
    return True


TAKEN = [pair for pair in PAIRS if is_taken(*pair)]
REFUSED = [pair for pair in PAIRS if not is_taken(*pair)]


def model_folder(folder: Path, **changes: Any) -> Path:
    """A folder whose scheduler is that of a model of SD 1.5."""
    found = {"beta_schedule": "scaled_linear", "num_train_timesteps": 1000, **changes}
    path = folder / "scheduler" / "scheduler_config.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(found))
    return folder


def levels(scheduler: Any, steps: int) -> list[float]:
    """Timesteps of a sampling, and the noise levels where the scheduler has them."""
    scheduler.set_timesteps(steps)
    sigmas = getattr(scheduler, "sigmas", torch.zeros(0))
    return [float(value) for value in (*scheduler.timesteps, *sigmas)]


def test_every_sampler_takes_the_spacings_and_those_of_noise_levels_the_rest() -> None:
    whole = {"euler", "dpmsolver", "unipc", "heun"}
    assert {scheduler for scheduler, schedule in TAKEN if schedule == "karras"} == whole
    assert {scheduler for scheduler, schedule in TAKEN if schedule == "trailing"} == set(SCHEDULERS)
    assert len(TAKEN) == 7 * 3 + 4 * 3


@pytest.mark.parametrize(("scheduler", "schedule"), TAKEN)
def test_a_pair_that_is_taken_changes_what_the_sampler_visits(
    scheduler: str, schedule: str
) -> None:
    own = new_scheduler(SchedulerShape()).config
    found = levels(new_sampler(own, config(scheduler, schedule)), 10)
    assert found != levels(new_sampler(own, config(scheduler, None)), 10)
    # The spacing alone is another schedule than noise levels by a law.
    if schedule in ("exponential", "karras", "beta"):
        assert found != levels(new_sampler(own, config(scheduler, "scaled_linear")), 10)


@pytest.mark.parametrize(("scheduler", "schedule"), REFUSED)
def test_a_pair_that_is_refused_would_be_ignored_by_diffusers(
    scheduler: str, schedule: str
) -> None:
    own = new_scheduler(SchedulerShape()).config
    evenly = levels(new_sampler(own, config(scheduler, "scaled_linear")), 10)
    assert levels(new_sampler(own, config(scheduler, schedule)), 10) == evenly
    with pytest.raises(ConfigError, match=rf"{scheduler} ignores it.*euler, dpmsolver, unipc"):
        check_config(config(scheduler, schedule))


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_sampling_keeps_the_betas_of_the_training(zero_terminal_snr: bool, tmp_path: Path) -> None:
    kind = "v_prediction" if zero_terminal_snr else "epsilon"
    own = new_scheduler(SchedulerShape(prediction_type=kind, zero_terminal_snr=zero_terminal_snr))
    folder = model_folder(tmp_path / "model", rescale_betas_zero_snr=zero_terminal_snr)
    checked = 0
    for scheduler, schedule in [*TAKEN, *((name, None) for name in SCHEDULERS)]:
        cfg = config(scheduler, schedule)
        try:
            check_model_schedule(folder, cfg)
        except ConfigError:
            continue
        sampler = new_sampler(own.config, cfg)
        assert torch.equal(sampler.betas, own.betas), (scheduler, schedule)
        assert sampler.config.prediction_type == kind
        checked += 1
    # `linear` is for other betas; without a bound the noise levels follow no law of their own.
    assert checked == (5 * 3 if zero_terminal_snr else 7 * 3 + 4 * 3)


@pytest.mark.parametrize(("scheduler", "schedule"), TAKEN)
def test_a_sampling_ends_in_finite_numbers_at_any_number_of_steps(
    scheduler: str, schedule: str
) -> None:
    # Rounded timesteps come twice from some 50 steps on, where diffusers alone raised IndexError.
    own = new_scheduler(SchedulerShape()).config
    for steps in (2, 3, 50, 130):
        sampler = step_on_cpu(new_sampler(own, config(scheduler, schedule)))
        sampler.set_timesteps(steps, device="cpu")
        latents = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
        latents = latents * sampler.init_noise_sigma
        draws = {"generator": torch.Generator().manual_seed(1)} if "ancest" in scheduler else {}
        for timestep in sampler.timesteps:
            predicted = 0.5 * torch.tanh(sampler.scale_model_input(latents, timestep))
            latents = sampler.step(predicted, timestep, latents, **draws).prev_sample
        assert torch.isfinite(latents).all()
        assert latents.abs().max() < 50


@pytest.mark.parametrize(
    ("scheduler", "schedule", "changes", "reported"),
    [
        ("ddim", "karas", {}, "'karas': one of linear, .* Did you mean karras"),
        ("heunn", None, {}, "'heunn': one of ddim, .* Did you mean heun"),
        ("euler", "karras", {"steps": 1}, "at least 2 steps.* use trailing"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    scheduler: str, schedule: str | None, changes: dict[str, Any], reported: str
) -> None:
    with pytest.raises(ConfigError, match=reported):
        check_config(config(scheduler, schedule, **changes))
    check_config(config("euler", "trailing", steps=1))


@pytest.mark.parametrize(
    ("noise", "scheduler", "schedule", "reported"),
    [
        ({}, "euler", "linear", "betas of .* are scaled_linear, .* use scaled_linear"),
        ({"beta_schedule": "linear"}, "ddim", "scaled_linear", "are linear, .* use linear"),
        ({"beta_schedule": "squaredcos_cap_v2"}, "ddim", "linear", "use trailing"),
        ({"trained_betas": [0.1]}, "ddim", "linear", "are given, .* use trailing"),
        ({"rescale_betas_zero_snr": True}, "pndm", None, "use ddim, euler, dpmsolver, unipc"),
        ({"rescale_betas_zero_snr": True}, "heun", "trailing", "other betas than it is trained"),
        ({"rescale_betas_zero_snr": True}, "euler", "karras", "no bound .* use trailing"),
        ({"rescale_betas_zero_snr": True}, "dpmsolver", "beta", "no bound"),
        ({"num_train_timesteps": 40}, "ddim", None, "has 40 timesteps; give at most 40"),
        ({"num_train_timesteps": 50}, "unipc", "trailing", "give at most 49"),
    ],
)
def test_what_is_not_for_the_noise_of_the_model_is_refused(
    tmp_path: Path, noise: dict[str, Any], scheduler: str, schedule: str | None, reported: str
) -> None:
    with pytest.raises(ConfigError, match=reported):
        check_model_schedule(model_folder(tmp_path, **noise), config(scheduler, schedule))


def test_a_model_is_judged_by_the_training_that_it_is_yet_to_have(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "base")
    check_model_schedule(folder, config("pndm", None))
    with pytest.raises(ConfigError, match="zero terminal SNR"):
        check_model_schedule(folder, config("pndm", None), zero_terminal_snr=True)


def test_linear_is_for_a_model_of_linear_betas_and_no_schedule_changes_nothing(
    tmp_path: Path,
) -> None:
    check_model_schedule(model_folder(tmp_path, beta_schedule="linear"), config("ddim", "linear"))
    assert schedule_options(config("ddim", None)) == {}
