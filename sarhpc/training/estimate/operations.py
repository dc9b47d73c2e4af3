"""A training step without numbers: its arithmetic and its memory, counted on any machine.

The very modules that will train run forward and backward on fake tensors, which have shapes and no
contents. Floating point operations are counted from each call, bytes from each storage that is
alive. Attention is taken as a kernel that never stores its scores, as torch's on GPUs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lycoris_utils import LycorisLayer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from sarhpc.diffusion.control import CONTROLNET, new_controlnet
from sarhpc.diffusion.skeleton import Skeleton, skeleton_of
from sarhpc.training.config import TrainConfig
from sarhpc.training.denoising.model import Denoiser, checkpoint_gradients
from sarhpc.training.denoising.start import mark_trainable

Inputs = tuple[list[Tensor], Tensor | None]
"""Latents, timesteps and conditions of a `Denoiser`, and the layer that conditions a ControlNet."""


@dataclass(frozen=True)
class FlopEstimate:
    """What one micro-batch of a training takes on one rank, and one image of it."""

    origin: str
    """Where the shapes of the models are from."""
    parameters: int
    """Of U-Net and text encoders, adapters included."""
    learned: int
    """Those that learn."""
    autoencoder: int
    """Parameters of the autoencoder, which is not trained."""
    image_flops: float
    """Forward and backward pass of one image, without what gradient checkpointing repeats."""
    done_flops: float
    """The same with it."""
    encode_flops: float
    """Encoding one image."""
    activation_bytes: int
    """Most bytes alive at once in a micro-batch beside weights and their gradients."""
    encode_bytes: int
    """The same while its images are encoded, in float32."""


def estimate_flops(cfg: TrainConfig, base: Path, image_px: int) -> FlopEstimate:
    """The count for tiles of `image_px` x `image_px` px; needs neither weights nor a GPU.

    A bundle that is not there is counted in its published shapes. Of a learned token only its row
    is left out: what carries its gradient there is counted.

    Raises:
        ConfigError: an adapter that does not fit the models.
        DataError: the folder is no bundle.
    """
    skeleton, model = _on_meta(cfg, base)
    with FakeTensorMode():
        for module in (model, skeleton.vae):
            _make_fake(module)
        images = _images(cfg)
        inputs = _inputs(skeleton, images, image_px)
        if cfg.gradient_checkpointing:
            checkpoint_gradients(model)
        step = count_step(model, inputs)
        encoding = _count_encoding(skeleton.vae, images, image_px)
        sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
        return FlopEstimate(
            skeleton.origin,
            parameters=sum(numel for numel, _ in sizes),
            learned=sum(numel for numel, learns in sizes if learns),
            autoencoder=sum(p.numel() for p in skeleton.vae.parameters()),
            image_flops=(step.flops - step.repeated) / images,
            done_flops=step.flops / images,
            encode_flops=encoding.flops / images,
            activation_bytes=step.most,
            encode_bytes=encoding.most,
        )


def image_flops(cfg: TrainConfig, base: Path, image_px: int) -> float:
    """Operations of `FlopEstimate.image_flops` alone, sooner than by `estimate_flops`.

    Raises:
        ConfigError: an adapter that does not fit the models.
        DataError: the folder is no bundle.
    """
    skeleton, model = _on_meta(cfg, base)
    # Scores of attention that are stored here and not on a GPU are bytes, and no operations.
    with torch.device("meta"):
        inputs = _inputs(skeleton, _images(cfg), image_px)
    step = count_step(model, inputs)
    return step.flops / _images(cfg)


def _images(cfg: TrainConfig) -> int:
    """Images of a micro-batch, which share what an adapter does once for all of them."""
    return cfg.micro_batch * (1 if cfg.prior is None else 2)


def _on_meta(cfg: TrainConfig, base: Path) -> tuple[Skeleton, Denoiser]:
    """The models in their shapes, and what trains of them in its type, on the meta device."""
    skeleton = skeleton_of(base)
    if cfg.control is not None:
        with torch.device("meta"):
            backbone = skeleton.models[skeleton.family.backbone]
            skeleton.models[CONTROLNET] = new_controlnet(backbone, cfg.seed)
    mark_trainable(cfg, skeleton.family, skeleton.models)
    model = Denoiser(skeleton.family, skeleton.models).train()
    for module in model.modules():
        if isinstance(module, LycorisLayer):
            module.eval()  # in training it draws a number to decide by, and here are none
    if cfg.token is not None:
        _carry_gradients_to_words(model)
    model.to(torch.bfloat16 if cfg.precision == "bf16" else torch.float32)
    return skeleton, model


def _carry_gradients_to_words(model: Denoiser) -> None:
    """Let the words' embeddings ask for gradients, as they do where one of them is learned."""
    for encoder in model.encoders:
        words = encoder.get_input_embeddings()
        words.register_forward_hook(lambda _module, _ids, found: found.requires_grad_())


def _make_fake(model: nn.Module) -> None:
    """Move `model` from the meta device, where attention stores its scores, to fake tensors."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            empty = torch.empty(parameter.shape, dtype=parameter.dtype)
            setattr(module, name, nn.Parameter(empty, parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))


def _inputs(skeleton: Skeleton, images: int, image_px: int) -> Inputs:
    family, models = skeleton.family, skeleton.models
    side = image_px // 2 ** (len(skeleton.vae.config.block_out_channels) - 1)
    latents = torch.zeros(images, models[family.backbone].config.in_channels, side, side)
    given = [latents, torch.zeros(images, dtype=torch.int64)]
    for encoder in family.encoders:
        length = models[encoder.folder].config.max_position_embeddings
        given.append(torch.zeros(images, length, dtype=torch.int64))
    if family.size_ids:
        given.append(torch.zeros(images, family.size_ids))
    layer = torch.zeros(images, 3, image_px, image_px) if CONTROLNET in models else None
    return given, layer


def count_step(model: Denoiser, inputs: Inputs) -> OpCounter:
    """OpCounter of one forward and backward pass in which gradients are dropped when whole.

    Where the engine keeps gradients, and in what type, is counted apart.
    """
    released = [
        parameter.register_post_accumulate_grad_hook(_release)
        for parameter in model.parameters()
        if parameter.requires_grad
    ]
    with OpCounter(model) as counter:
        given, layer = inputs
        loss = model(*given, layer=layer).square().mean()
        counter.is_backward = True
        loss.backward()
    for hook in released:
        hook.remove()
    return counter


def _release(parameter: Tensor) -> None:
    parameter.grad = None


def _count_encoding(vae: Any, images: int, image_px: int) -> OpCounter:
    batch = torch.zeros(images, 3, image_px, image_px)
    with torch.no_grad(), OpCounter(vae) as counter:
        vae.encode(batch)
    return counter


def _attention_flops(
    query: Any, key: Any, value: Any, *_: Any, out_val: Any = None, **__: Any
) -> int:
    """Two products of (B, heads, L, d) by (B, heads, S, d): 4 B heads L S d operations."""
    return int(2 * query.numel() * (key.shape[-2] + value.shape[-2]))


def _backward_flops(_gradient: Any, *tensors: Any, **__: Any) -> int:
    return 2 * _attention_flops(*tensors[:3])


_OPERATIONS: dict[Any, Callable[..., Any]] = {
    **flop_registry,
    # The products of scores that the model has; what a kernel repeats to save memory is not its
    # arithmetic, and published counts leave it out.
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward_flops,
}


class OpCounter(TorchDispatchMode):
    """Operations of the block, and bytes of the storages made inside it that are alive."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.flops = 0
        """Floating point operations."""
        self.repeated = 0
        """Those of them that gradient checkpointing repeats in the backward pass."""
        self.is_backward = False
        self.now = 0
        self.most = 0
        """Most bytes alive at once, beside those of `model`."""
        own = (*model.parameters(), *model.buffers())
        self._known = {tensor.untyped_storage()._cdata for tensor in own}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        count = _OPERATIONS.get(function.overloadpacket)
        if count is not None:
            self._add(int(count(*args, **(kwargs or {}), out_val=result)))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage())
        return result

    def _add(self, flops: int) -> None:
        self.flops += flops
        # The backward pass itself records no gradients; what is computed again does.
        if self.is_backward and torch.is_grad_enabled():
            self.repeated += flops

    def _see(self, storage: torch.UntypedStorage) -> None:
        # A storage keeps its Python object, so its number is free again only when that is gone.
        if storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, number: int, size: int) -> None:
        self._known.discard(number)
        self.now -= size
