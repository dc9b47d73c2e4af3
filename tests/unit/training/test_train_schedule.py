"""Lengths, rates and refusals."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hpc.config import decisive, fingerprint, load
from hpc.errors import ConfigError
from sarhpc.training.config import OffloadConfig, TrainConfig
from sarhpc.training.config_checks import check
from sarhpc.training.schedule import ema_decay, length, rate_scale


def test_defaults_are_the_papers() -> None:
    cfg = TrainConfig()
    assert (cfg.lr_unet, cfg.lr_text_encoder) == (5e-5, 5e-6)
    assert (cfg.global_batch, cfg.epochs, cfg.zero_stage) == (16, 12, 2)
    assert length(cfg, 10_000, 4).steps == 7_500
    check(cfg)


def test_last_epoch_is_trained_to_its_last_sample() -> None:
    extent = length(TrainConfig(global_batch=16, micro_batch=2, epochs=3), 21, 2)
    assert extent.steps == 4
    assert extent.steps * 16 >= 3 * 21
    assert extent.accumulation == 4
    assert [extent.epoch(step) for step in range(5)] == [0, 0, 1, 2, 3]
    assert [extent.ends_epoch(step) for step in range(5)] == [False, False, True, True, True]


def test_batch_that_does_not_divide_is_refused_with_the_numbers() -> None:
    with pytest.raises(ConfigError, match="16 is no multiple of micro_batch x ranks = 3 x 2"):
        length(TrainConfig(micro_batch=3), 100, 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"zero_stage": 4}, "zero_stage=4"),
        ({"precision": "fp16"}, "fp32, bf16"),
        ({"zero_stage": 0, "precision": "bf16"}, "zero_stage=1"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"lr_schedule": "linear"}, "constant, cosine"),
        ({"image_member": "vv.png"}, "sar.png, optic.png"),
        ({"compile": True, "zero_stage": 3}, "use zero_stage=2"),
        ({"offload": OffloadConfig(optimizer="nvme")}, "use cpu"),
        ({"offload": OffloadConfig(optimizer="gpu")}, "none, cpu"),
        (
            {"offload": OffloadConfig(), "zero_stage": 0, "precision": "fp32"},
            "zero_stage=0, which shards none",
        ),
        ({"offload": OffloadConfig(parameters="cpu")}, "use zero_stage=3"),
        (
            {"offload": OffloadConfig(parameters="nvme"), "zero_stage": 3},
            "a folder on a disk of the node goes with nvme",
        ),
        ({"offload": OffloadConfig(nvme_path="/disk")}, "goes with nvme and with nothing else"),
        ({"on_nonfinite": "ignore"}, "one of stop, skip"),
        ({"lr_unet": -1.0}, "lr_unet=-1.0: must be >= 0"),
        ({"on_nonfinite": "skip", "skip_in_a_row": 0}, "skip_in_a_row=0: allow 1 or more"),
    ],
)
def test_meaningless_values_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check(TrainConfig(**changes))  # type: ignore[arg-type]


def test_rates_rise_over_the_warm_up_and_then_hold_or_fall() -> None:
    constant = TrainConfig(warmup_steps=4)
    assert [rate_scale(constant, step, 10) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    cosine = TrainConfig(warmup_steps=4, lr_schedule="cosine")
    scales = [rate_scale(cosine, step, 10) for step in range(4, 10)]
    assert scales[0] == 1
    assert scales == sorted(scales, reverse=True)
    assert 0 < scales[-1] < 0.1
    assert rate_scale(TrainConfig(warmup_steps=0), 0, 10) == 1


def test_young_average_follows_quickly() -> None:
    cfg = TrainConfig(ema_decay=0.999)
    assert ema_decay(cfg, 0) == pytest.approx(0.1)
    assert ema_decay(cfg, 10**6) == 0.999


def test_fingerprint_ignores_how_fast_data_are_read() -> None:
    plain = load(TrainConfig)
    assert fingerprint(load(TrainConfig, None, ["loader_threads=9"])) == fingerprint(plain)
    assert fingerprint(load(TrainConfig, None, ["lr_unet=1e-5"])) != fingerprint(plain)


def test_engine_options_leave_the_fingerprint_of_earlier_runs_alone() -> None:
    frozen_before = set(decisive(load(TrainConfig)))
    assert not {"channels_last", "compile", "fused_optimizer", "offload"} & frozen_before
    for word in ("channels_last=true", "compile=true", "fused_optimizer=true", "offload={}"):
        assert fingerprint(load(TrainConfig, None, [word])) != fingerprint(load(TrainConfig))


def test_configuration_imports_no_heavy_package() -> None:
    code = (
        "import sys, sarhpc.training.config;"
        "heavy = {'torch', 'numpy', 'diffusers', 'transformers', 'deepspeed'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
