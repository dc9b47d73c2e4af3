"""The DeepSpeed engine: U-Net and text encoders in one module, groups with their own rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sarhpc.diffusion.control import CONTROLNET, predict_with_controlnet
from sarhpc.diffusion.families.family import ModelFamily
from sarhpc.training.checkpoints.partition import Partition, fill, partition_of
from sarhpc.training.compilation import compile_network
from sarhpc.training.config import EngineConfig, OffloadConfig, TrainConfig
from sarhpc.training.estimate.footprint import LARGEST_BUCKET
from sarhpc.training.machine import require_machine
from sarhpc.training.ranks import Ranks


class Denoiser(nn.Module):
    """Backbone and text encoders as one trainable module; parameter names start with their part."""

    def __init__(self, family: ModelFamily, models: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.family = family
        for part, model in models.items():
            self.add_module(part, model)
        self.controlnet: Any = models.get(CONTROLNET)
        self.groups = tuple(learning(self))
        """Names of the groups that learn, in the optimiser's order."""

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        *conditions: Tensor,
        layer: Tensor | None = None,
    ) -> Tensor:
        """Prediction (B, C, h, w) in float32 from noisy latents and timesteps (B,).

        The conditions are token ids (B, L) for each text encoder and, where the family has them,
        size ids (B, 6); with a ControlNet also a layer (B, 3, 8h, 8w) in [0, 1].
        """
        context, added = self.family.condition(self.encoders, conditions)
        noisy = latents.to(context.dtype)
        if self.controlnet is not None and layer is not None:
            return predict_with_controlnet(
                self.backbone, self.controlnet, noisy, timesteps, context, added, layer
            ).float()
        answer = self.backbone(
            noisy, timesteps, encoder_hidden_states=context, added_cond_kwargs=added
        ).sample
        return answer.float()

    @property
    def backbone(self) -> Any:
        """The network that predicts the noise."""
        return self.get_submodule(self.family.backbone)

    @property
    def encoders(self) -> tuple[Any, ...]:
        """The text encoders, in order."""
        return tuple(self.get_submodule(encoder.folder) for encoder in self.family.encoders)


def learning(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters that require a gradient, by group."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = "token" if name.endswith(".learned") else name.partition(".")[0]
            groups.setdefault(group, []).append(parameter)
    return groups


def start_engine(
    cfg: TrainConfig, model: Denoiser, ranks: Ranks, accumulation: int
) -> tuple[Any, Partition]:
    """A DeepSpeed engine around `model` with AdamW over its named groups, and its partition.

    Raises:
        ConfigError: this machine lacks what an option of `cfg` needs.
        NumericalError: the compiled U-Net has other gradients than the plain one.
    """
    require_machine(cfg, ranks.device)
    full = weights_that_learn(model)
    if cfg.gradient_checkpointing:
        checkpoint_gradients(model)
    if cfg.channels_last:
        put_channels_last(model)
    model.train()
    if cfg.compile:
        # On the device and in the type of the training: this is what is compiled, and compared.
        model.to(ranks.device, torch.bfloat16 if cfg.precision == "bf16" else torch.float32)
        compile_network(model.backbone, cfg.micro_batch * (1 if cfg.prior is None else 2))
    optimizer = _adamw(cfg, model.to(ranks.device), ranks.device)
    return put_on_engine(cfg, model, optimizer, full, ranks, accumulation)


def weights_that_learn(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters that require a gradient, by name."""
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def put_on_engine(
    cfg: EngineConfig,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    full: Mapping[str, Tensor],
    ranks: Ranks,
    accumulation: int,
) -> tuple[Any, Partition]:
    """A DeepSpeed engine around any `model`, and its partition.

    Args:
        cfg: what the engine is told.
        model: on its device; each group of `optimizer` over its parameters has a name.
        optimizer: one of torch's.
        full: the weights that learn, not rounded, by name.
        ranks: this process among the others.
        accumulation: forward passes per step.
    """
    import deepspeed

    _import_muon_plain()
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config=deepspeed_config(cfg, model, ranks.world, accumulation),
        dist_init_required=False,
    )
    if cfg.zero_stage == 3:
        _announce_borrowing(engine.module)
    partition = partition_of(engine)
    if cfg.precision != "fp32":
        # DeepSpeed takes its fp32 masters from the weights already rounded to bf16.
        fill(partition, full)
    return engine, partition


def _import_muon_plain() -> None:
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


def _announce_borrowing(model: nn.Module) -> None:
    """Tell stage 3 which parameters a module reads of a child that it never calls.

    DeepSpeed finds these by itself, but not where the first forward pass follows a loaded
    checkpoint: it then hands out a parameter that is still being gathered, without any numbers.
    """
    from deepspeed.runtime.zero import register_external_parameter

    for module in model.modules():
        for name, child in module.named_children():
            # CLIP asks its position table for its length; LoHa and LoKr keep their factors so.
            if name == "position_embedding" or isinstance(child, nn.ParameterDict):
                for parameter in child.parameters():
                    register_external_parameter(module, parameter)


def checkpoint_gradients(model: Denoiser) -> None:
    """Keep only what enters the blocks of `model`; what they compute is computed again backward."""
    for network in (model.backbone, model.controlnet):
        if network is not None:
            network.enable_gradient_checkpointing()
    for encoder in model.encoders:
        # Re-entrant checkpointing drops the gradient of a block whose inputs need none (token ids).
        encoder.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )


def put_channels_last(model: Denoiser) -> None:
    """Let every convolution of the U-Net and the ControlNet read images with channels innermost.

    It computes and answers in that order then. The weights stay as they lie: ZeRO cuts them from
    flat buffers.
    """
    for network in (model.backbone, model.controlnet):
        for module in network.modules() if network is not None else ():
            if isinstance(module, nn.Conv2d):
                module.register_forward_pre_hook(_channels_last)


def _channels_last(_module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    # Attention hands its images on with channels outermost whatever it read.
    return (inputs[0].contiguous(memory_format=torch.channels_last),)


def _adamw(cfg: TrainConfig, model: Denoiser, device: torch.device) -> torch.optim.AdamW:
    fused = device.type == "cuda" if cfg.fused_optimizer is None else cfg.fused_optimizer
    rates = base_rates(cfg, model.family)
    groups = [
        {"name": name, "params": parameters, "lr": rates[name]}
        for name, parameters in learning(model).items()
    ]
    beta1, beta2 = cfg.betas
    decay, epsilon = cfg.weight_decay, cfg.adam_epsilon
    return torch.optim.AdamW(
        groups, betas=(beta1, beta2), eps=epsilon, weight_decay=decay, fused=fused
    )


def base_rates(cfg: TrainConfig, family: ModelFamily) -> dict[str, float]:
    """Learning rate of each group before the schedule."""
    if cfg.control is not None:
        return {**dict.fromkeys(family.components, 0.0), CONTROLNET: cfg.control.lr}
    first = cfg.lr_text_encoder
    further = first if cfg.lr_text_encoder_2 is None else cfg.lr_text_encoder_2
    rates = dict.fromkeys(family.components, further)
    rates |= {family.backbone: cfg.lr_unet, family.encoders[0].folder: first}
    return rates if cfg.token is None else {**rates, "token": cfg.token.lr}


def deepspeed_config(
    cfg: EngineConfig, model: nn.Module, world: int, accumulation: int
) -> dict[str, Any]:
    """DeepSpeed's own configuration; buckets fit the model, no optimiser, no scheduler."""
    sizes = [parameter.numel() for parameter in model.parameters()]
    learn = sum(p.numel() for p in model.parameters() if p.requires_grad)
    bucket = min(learn, LARGEST_BUCKET)
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


def set_rates(engine: Any, cfg: TrainConfig, scale: float) -> dict[str, float]:
    """Write this step's rate into each group, by name, and return the rates.

    Every hyper-parameter is written, not the rate alone: a loaded checkpoint brings its own, and
    DeepSpeed's stage 3 can bring those of another group.
    """
    base, names = base_rates(cfg, engine.module.family), engine.module.groups
    rates = {name: base[name] * scale for name in names}
    for group, name in zip(engine.optimizer.param_groups, names, strict=True):
        group["name"], group["lr"] = name, rates[name]
        group["betas"], group["weight_decay"] = tuple(cfg.betas), cfg.weight_decay
    return rates
