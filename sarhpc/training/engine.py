"""The DeepSpeed engine: U-Net and text encoder in one module, two groups with their own rates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hpc.errors import NumericalError
from sarhpc.training.config import TrainConfig
from sarhpc.training.partition import Partition, fill, partition_of
from sarhpc.training.ranks import Ranks

GROUPS = ("unet", "text_encoder")
_LARGEST_BUCKET = 100_000_000


class Denoiser(nn.Module):
    """U-Net and text encoder as one trainable module; parameter names start with their group's."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, latents: Tensor, timesteps: Tensor, token_ids: Tensor) -> Tensor:
        """Prediction (B, 4, h, w) in float32 from noisy latents, timesteps (B,) and ids (B, L)."""
        context = self.text_encoder(token_ids)[0]
        noisy = latents.to(context.dtype)
        return self.unet(noisy, timesteps, encoder_hidden_states=context).sample.float()


def start_engine(
    cfg: TrainConfig, model: Denoiser, ranks: Ranks, accumulation: int
) -> tuple[Any, Partition]:
    """A DeepSpeed engine around `model` with AdamW over the two named groups, and its partition."""
    import deepspeed

    full = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    if cfg.gradient_checkpointing:
        _checkpoint_gradients(model)
    model.train()
    engine, *_ = deepspeed.initialize(
        model=model.to(ranks.device),
        optimizer=_adamw(cfg, model, fused=ranks.device.type == "cuda"),
        config=deepspeed_config(cfg, model, ranks.world, accumulation),
        dist_init_required=False,
    )
    partition = partition_of(engine)
    if cfg.precision != "fp32":
        # DeepSpeed takes its fp32 masters from the weights already rounded to bf16.
        fill(partition, full)
    return engine, partition


def _checkpoint_gradients(model: Denoiser) -> None:
    # Re-entrant checkpointing drops the gradient of a block whose inputs need none (token ids).
    unet, encoder = model.unet, model.text_encoder
    unet.enable_gradient_checkpointing()  # type: ignore[operator]
    encoder.gradient_checkpointing_enable(  # type: ignore[operator]
        gradient_checkpointing_kwargs={"use_reentrant": False}
    )


def _adamw(cfg: TrainConfig, model: Denoiser, *, fused: bool) -> torch.optim.AdamW:
    groups = [
        {"name": name, "params": list(getattr(model, name).parameters()), "lr": rate}
        for name, rate in base_rates(cfg).items()
    ]
    beta1, beta2 = cfg.betas
    decay, epsilon = cfg.weight_decay, cfg.adam_epsilon
    return torch.optim.AdamW(
        groups, betas=(beta1, beta2), eps=epsilon, weight_decay=decay, fused=fused
    )


def base_rates(cfg: TrainConfig) -> dict[str, float]:
    """Learning rate of each group before the schedule."""
    return {"unet": cfg.lr_unet, "text_encoder": cfg.lr_text_encoder}


def deepspeed_config(
    cfg: TrainConfig, model: nn.Module, world: int, accumulation: int
) -> dict[str, Any]:
    """DeepSpeed's own configuration; buckets fit the model, no optimiser, no scheduler."""
    sizes = [parameter.numel() for parameter in model.parameters()]
    bucket = min(sum(sizes), _LARGEST_BUCKET)
    zero: dict[str, Any] = {
        "stage": cfg.zero_stage,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        # Overlap needs streams of a GPU; on a CPU it only reorders work.
        "overlap_comm": torch.cuda.is_available(),
    }
    if cfg.zero_stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": bucket // 4,
            "stage3_param_persistence_threshold": min(100_000, max(sizes) // 10),
            "stage3_gather_16bit_weights_on_model_save": False,
        }
    return {
        "train_batch_size": cfg.micro_batch * accumulation * world,
        "train_micro_batch_size_per_gpu": cfg.micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": cfg.grad_clip,
        "bf16": {"enabled": cfg.precision == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "checkpoint": {"tag_validation": "Fail"},
        "steps_per_print": 2**31,
    }


def set_rates(engine: Any, cfg: TrainConfig, scale: float) -> dict[str, float]:
    """Write this step's rate into each group, by name, and return the rates.

    Every hyper-parameter is written, not the rate alone: a loaded checkpoint brings its own, and
    DeepSpeed's stage 3 can bring those of another group.
    """
    rates = {name: rate * scale for name, rate in base_rates(cfg).items()}
    for group, name in zip(engine.optimizer.param_groups, GROUPS, strict=True):
        group["name"], group["lr"] = name, rates[name]
        group["betas"], group["weight_decay"] = tuple(cfg.betas), cfg.weight_decay
    return rates


def gradient_norms(engine: Any, partition: Partition, beta1: float) -> dict[str, float]:
    """Norm of each group's (clipped) gradient of the first step, from AdamW's first moment.

    After one step the moment is (1 - beta1) times the gradient, sharded like the weights, so no
    parameter has to be gathered. Collective.
    """
    inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
    squares = torch.zeros(len(GROUPS), dtype=torch.float64)
    for tensor, group in zip(partition.tensors, partition.groups, strict=True):
        moment = inner.state[tensor]["exp_avg"].detach().double()
        squares[GROUPS.index(group)] += (moment / (1 - beta1)).square().sum().cpu()
    if not partition.replicated:
        total = squares.to(partition.tensors[0].device)
        torch.distributed.all_reduce(total)
        squares = total.cpu()
    return dict(zip(GROUPS, squares.sqrt().tolist(), strict=True))


def require_gradients(norms: dict[str, float]) -> None:
    """Stop a run in which one group learns nothing.

    Raises:
        NumericalError: a group's gradient was zero at the first step.
    """
    silent = [name for name, norm in norms.items() if norm == 0.0]
    if silent:
        raise NumericalError(
            f"no gradient reached {' and '.join(silent)} in the first step; "
            "check that its parameters require gradients and that captions are not all empty"
        )
