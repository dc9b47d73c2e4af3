from __future__ import annotations

import pytest
import torch
from torch import nn

from sarhpc.training.checkpoints.partition import Fragment, Partition, clear_padding
from sarhpc.training.config import LoopConfig
from sarhpc.training.engine import deepspeed_config


@pytest.mark.parametrize("outputs", [3, 4])
def test_buckets_have_an_even_number_of_elements(outputs: int) -> None:
    """DeepSpeed ends at an assertion otherwise, at stages 1 and 2."""
    cfg = LoopConfig(steps=1, global_batch=2, micro_batch=2, grad_clip=1.0, seed=0, zero_stage=2)
    zero = deepspeed_config(cfg, nn.Linear(1, outputs, bias=False), 1, 1)["zero_optimization"]
    assert zero["reduce_bucket_size"] == zero["allgather_bucket_size"] == 4


def test_numbers_that_belong_to_no_parameter_are_zero() -> None:
    """Equal trainings save equal bytes where a parameter does not divide among the ranks."""
    flat = torch.arange(1.0, 7.0)
    pieces = (Fragment("a", (2,), 0, 0, 0, 2), Fragment("b", (5,), 0, 3, 3, 2))
    clear_padding(Partition([flat], pieces, ("all",), replicated=False))
    assert flat.tolist() == [1, 2, 0, 4, 5, 0]
