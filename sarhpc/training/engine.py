"""The DeepSpeed engine around a module that learns, and how it is configured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hpc.job.agreement import RankGroup
from sarhpc.training.checkpoints.partition import Partition, clear_padding, fill, partition_of
from sarhpc.training.config import EngineConfig, OffloadConfig
from sarhpc.training.estimate.footprint import LARGEST_BUCKET


def trainable_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters that require a gradient, by name."""
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def wrap_in_engine(
    cfg: EngineConfig,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    full: Mapping[str, Tensor],
    ranks: RankGroup,
    accumulation: int,
) -> tuple[Any, Partition]:
    """A DeepSpeed engine around any `model`, and its partition.

    Args:
        cfg: options of the engine.
        model: on its device; each group of `optimizer` over its parameters has a name.
        optimizer: one of torch's.
        full: the weights that learn, not rounded, by name.
        ranks: this process among the others.
        accumulation: forward passes per step.
    """
    import deepspeed

    _import_muon_uncompiled()
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config=deepspeed_config(cfg, model, ranks.world, accumulation),
        dist_init_required=False,
    )
    if cfg.zero_stage == 3:
        _register_borrowed_parameters(engine.module)
    partition = partition_of(engine)
    if not partition.replicated:
        clear_padding(partition)
    if cfg.precision != "fp32":
        # DeepSpeed takes its fp32 masters from the weights already rounded to bf16.
        fill(partition, full)
    return engine, partition


def _import_muon_uncompiled() -> None:
    """Import DeepSpeed's Muon, which nothing here uses, without compiling it.

    DeepSpeed asks of every optimiser whether it is Muon. Its import compiles three functions, for
    which torch imports 550 modules of its compiler: two seconds of every rank at every start.
    """
    from deepspeed.runtime import compiler

    compile_ = compiler.compile
    compiler.compile = lambda *_, **__: lambda function: function
    try:
        import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
    finally:
        compiler.compile = compile_


def _register_borrowed_parameters(model: nn.Module) -> None:
    """Tell stage 3 which parameters a module reads of a child that it never calls.

    DeepSpeed finds these by itself, but not where the first forward pass follows a loaded
    checkpoint: it then returns a parameter that is still being gathered, without any numbers.
    """
    from deepspeed.runtime.zero import register_external_parameter

    for module in model.modules():
        for name, child in module.named_children():
            # CLIP asks its position table for its length; LoHa and LoKr keep their factors so.
            if name == "position_embedding" or isinstance(child, nn.ParameterDict):
                for parameter in child.parameters():
                    register_external_parameter(module, parameter)


def deepspeed_config(
    cfg: EngineConfig, model: nn.Module, world: int, accumulation: int
) -> dict[str, Any]:
    """DeepSpeed's own configuration; buckets fit the model, no optimiser, no scheduler."""
    sizes = [parameter.numel() for parameter in model.parameters()]
    learn = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # DeepSpeed refuses an odd number of elements at stages 1 and 2.
    bucket = min(learn + learn % 2, LARGEST_BUCKET)
    zero: dict[str, Any] = {
        "stage": cfg.zero_stage,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        # Overlap needs streams of a GPU; on a CPU it only reorders work.
        "overlap_comm": torch.cuda.is_available(),
    }
    if cfg.zero_stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": min(sum(sizes), LARGEST_BUCKET) // 4,
            "stage3_param_persistence_threshold": min(100_000, max(sizes) // 10),
            "stage3_gather_16bit_weights_on_model_save": False,
        }
    if cfg.offload is not None:
        zero |= _offload(cfg.offload)
    return {
        "train_batch_size": cfg.micro_batch * accumulation * world,
        "train_micro_batch_size_per_gpu": cfg.micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": cfg.grad_clip,
        "bf16": {"enabled": cfg.precision == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        # DeepSpeed's own AdamW for CPUs is compiled at start; torch's fused one needs nothing.
        "zero_force_ds_cpu_optimizer": False,
        "checkpoint": {"tag_validation": "Fail"},
        "steps_per_print": 2**31,
    }


def _offload(offload: OffloadConfig) -> dict[str, Any]:
    parts = {"offload_optimizer": offload.optimizer, "offload_param": offload.parameters}
    blocks: dict[str, Any] = {
        part: {"device": place, "pin_memory": offload.pin_memory}
        for part, place in parts.items()
        if place != "none"
    }
    if offload.parameters == "nvme":
        blocks["offload_param"]["nvme_path"] = offload.nvme_path
    return blocks
