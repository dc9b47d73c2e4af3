"""A run is refused where its model could not be sampled as configured, before work begins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from line_runs import tiny_run
from model_folders import model_layout
from safetensors.torch import save_file

from hpc.errors import ConfigError, DataError
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir
from sarhpc.stages.inputs.sampling import check_sampled
from sarhpc.stages.run_config import load_run_config


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with the betas of SD 1.5, and one module of a U-Net."""
    folder = model_layout(tmp_path / "base")
    betas = {"beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(betas))
    weights = {"mid.to_q.weight": torch.zeros(8, 4)}
    save_file(weights, folder / "unet/diffusion_pytorch_model.safetensors")
    return folder


def lora(file: Path, outputs: int = 8) -> Path:
    factors = {"lora_A": torch.zeros(2, 4), "lora_B": torch.zeros(outputs, 2)}
    save_file({f"unet.mid.to_q.{name}.weight": one for name, one in factors.items()}, file)
    return file


def checked(root: Path, base: Path, *words: str) -> RunDir:
    run = tiny_run(root, base, words)
    check_sampled(run, load_run_config(run))
    return run


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["generate.scheduler=pndm", "train.zero_terminal_snr=true"], "zero terminal SNR"),
        (["generate.schedule=linear"], r"betas of .* are scaled_linear"),
        (["generate.steps=2000"], "give at most 1000"),
    ],
)
def test_samplers_that_are_not_for_the_model_to_be_trained_are_refused(
    tmp_path: Path, base: Path, words: list[str], reported: str
) -> None:
    with pytest.raises(ConfigError, match=reported):
        checked(tmp_path / "run", base, *words)


def test_adapters_are_compared_with_the_base_model(tmp_path: Path, base: Path) -> None:
    fits, other = lora(tmp_path / "a.safetensors"), lora(tmp_path / "b.safetensors", 6)
    checked(tmp_path / "one", base, f"generate.adapters=[{{path: {fits}, weight: 0.5}}]")
    with pytest.raises(DataError, match=r"unet mid_to_q, 6 x 4 weights, where it has 8 x 4"):
        checked(tmp_path / "two", base, f"generate.adapters=[{{path: {fits}}}, {{path: {other}}}]")
    with pytest.raises(DataError, match="no adapter at /none"):
        checked(tmp_path / "three", base, "generate.adapter=/none")


def test_what_is_planned_already_goes_on(tmp_path: Path, base: Path) -> None:
    run = tiny_run(tmp_path / "run", base, ["generate.steps=2000"])
    config = load_run_config(run)
    with pytest.raises(ConfigError, match="steps"):
        check_sampled(run, config)
    publish_plan(make_plan("generate", [{}]), run.plan_file("generate"))
    check_sampled(run, config)
