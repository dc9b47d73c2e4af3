"""What is said where a training does not fit on its GPUs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sarhpc.stages.config import RunConfig
from sarhpc.stages.training_cost import memory_advice

_BASE = str(Path(__file__).parents[3] / "sarhpc" / "embedded" / "base")


def test_training_that_does_not_fit_says_what_to_lower_and_the_estimate() -> None:
    config = RunConfig()
    cfg = dataclasses.replace(config.train, base_model=_BASE, micro_batch=4, zero_stage=1)
    said = memory_advice(config, cfg, 1)
    for way in (
        "train.micro_batch below 4",
        "train.gradient_checkpointing=true",
        "train.zero_stage=2",
        "train.offload.optimizer=cpu",
    ):
        assert way in said
    assert "each GPU, ZeRO-1 bf16, 4 x" in said
    assert "A100-80 yes" in said


def test_what_is_set_already_is_not_advised() -> None:
    config = RunConfig()
    cfg = dataclasses.replace(
        config.train, base_model=_BASE, micro_batch=1, gradient_checkpointing=True
    )
    said = memory_advice(config, cfg, 1)
    assert "micro_batch" not in said
    assert "gradient_checkpointing" not in said
