"""The denoiser: backbone and text encoders in one module, groups with their own rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sarhpc.diffusion.control import CONTROLNET, predict_with_controlnet
from sarhpc.diffusion.families.family import ModelFamily
from sarhpc.training.compilation import compile_network
from sarhpc.training.config import TrainConfig
from sarhpc.training.machine import require_machine


class Denoiser(nn.Module):
    """Backbone and text encoders as one trainable module; parameter names start with their part."""

    def __init__(self, family: ModelFamily, models: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.family = family
        for part, model in models.items():
            self.add_module(part, model)
        self.controlnet: Any = models.get(CONTROLNET)
        self.groups = tuple(trainable_groups(self))
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
    def tokens(self) -> int:
        """Tokens of a text, as its encoders read it."""
        return int(self.encoders[0].config.max_position_embeddings)

    @property
    def encoders(self) -> tuple[Any, ...]:
        """The text encoders, in order."""
        return tuple(self.get_submodule(encoder.folder) for encoder in self.family.encoders)


def trainable_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters that require a gradient, by group."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = "token" if name.endswith(".learned") else name.partition(".")[0]
            groups.setdefault(group, []).append(parameter)
    return groups


def prepare(cfg: TrainConfig, model: Denoiser, device: torch.device) -> torch.optim.AdamW:
    """AdamW over the named groups of `model`, which is moved to `device` as `cfg` trains it.

    Raises:
        ConfigError: this machine lacks what an option of `cfg` needs.
        NumericalError: the compiled U-Net has other gradients than the plain one.
    """
    require_machine(cfg, device)
    if cfg.gradient_checkpointing:
        checkpoint_gradients(model)
    if cfg.channels_last:
        put_channels_last(model)
    model.train()
    if cfg.compile:
        # On the device and in the type of the training: this is what is compiled, and compared.
        model.to(device, torch.bfloat16 if cfg.precision == "bf16" else torch.float32)
        images = cfg.micro_batch * (1 if cfg.prior is None else 2)
        compile_network(model.backbone, images, model.tokens)
    return _adamw(cfg, model.to(device), device)


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
    # Attention returns its images with channels outermost whatever it was given.
    return (inputs[0].contiguous(memory_format=torch.channels_last),)


def _adamw(cfg: TrainConfig, model: Denoiser, device: torch.device) -> torch.optim.AdamW:
    fused = device.type == "cuda" if cfg.fused_optimizer is None else cfg.fused_optimizer
    rates = base_rates(cfg, model.family)
    groups = [
        {"name": name, "params": parameters, "lr": rates[name]}
        for name, parameters in trainable_groups(model).items()
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
