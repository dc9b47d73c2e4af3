"""DyLoRA: an adapter whose every truncation is an adapter, after Valipour et al. (2023).

Its directions are trained in order: each sample of a batch uses the first b of them only, b drawn
at random (arXiv:2210.07558, with the update scaled by alpha / b; all weights of the first b
directions are trained, the paper's "without frozen"). b depends on the sample and its epoch only,
as every other random choice of a training, so the number of processes, restarts and gradient
checkpointing do not change it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from hpc.errors import ConfigError
from sarhpc.diffusion.adapter import ADAPTER_NAME, adapted
from sarhpc.diffusion.config import AdapterConfig
from sarhpc.diffusion.objective import sample_seed


def draw_ranks(
    cfg: AdapterConfig, sample_ids: Sequence[str], epochs: Sequence[int], seed: int
) -> Tensor:
    """How many directions each sample uses in its epoch (B,): multiples of `cfg.block`."""
    found = []
    for name, epoch in zip(sample_ids, epochs, strict=True):
        generator = torch.Generator().manual_seed(sample_seed(seed, epoch, f"{name}/rank"))
        blocks = int(torch.randint(cfg.rank // cfg.block, (), generator=generator)) + 1
        found.append(blocks * cfg.block)
    return torch.tensor(found)


class DynamicRanks:
    """Restricts each sample of a batch to the first directions of every adapter.

    To be attached before models are wrapped; until the first `set_mask` all directions are used.
    """

    def __init__(self, models: Mapping[str, nn.Module], cfg: AdapterConfig) -> None:
        self._cfg = cfg
        self._mask: Tensor | None = None
        for model in models.values():
            for _, layer in adapted(model):
                assert isinstance(layer, LoraLayer)
                layer.lora_A[ADAPTER_NAME].register_forward_hook(self._cut)

    def set_ranks(self, ranks: Tensor, device: torch.device) -> None:
        """Let sample i of each following batch use the first `ranks[i]` directions."""
        self.set_mask(self.mask(ranks).to(device))

    def mask(self, ranks: Tensor) -> Tensor:
        """Factor (B, rank) on each direction of each sample, which uses its first `ranks[i]`."""
        kept = torch.arange(self._cfg.rank) < ranks[:, None]
        # The layer scales by alpha / rank; a truncation is to be scaled by alpha / b.
        scale = torch.ones(len(ranks)) if self._cfg.alpha is None else self._cfg.rank / ranks
        return kept * scale[:, None]

    def set_mask(self, mask: Tensor) -> None:
        """Apply a `mask`, on the device of the models, to each following batch."""
        self._mask = mask

    def _cut(self, module: nn.Module, inputs: Any, answer: Tensor) -> Tensor:
        if self._mask is None:
            return answer
        mask = self._mask.to(answer.dtype)
        if answer.dim() == 4:  # of a convolution, (B, rank, H, W)
            return answer * mask[:, :, None, None]
        return answer * (mask[:, None] if answer.dim() == 3 else mask)


def require_truncation(cfg: AdapterConfig | None, rank: int) -> AdapterConfig:
    """`cfg` if its adapter can be truncated to `rank`.

    Raises:
        ConfigError: it cannot, or there is no adapter.
    """
    if cfg is None or cfg.kind != "dylora":
        kind = "no adapter" if cfg is None else f"an adapter of kind {cfg.kind}"
        raise ConfigError(
            f"export.adapter_rank={rank} of {kind}: only dylora can be truncated; set null"
        )
    if not 0 < rank <= cfg.rank or rank % cfg.block:
        raise ConfigError(
            f"export.adapter_rank={rank}: use a multiple of adapter.block={cfg.block} up to "
            f"adapter.rank={cfg.rank}"
        )
    return cfg


@torch.no_grad()
def truncate(models: Mapping[str, nn.Module], cfg: AdapterConfig, rank: int) -> None:
    """Keep the first `rank` directions of every adapter, scaled as in training.

    Raises:
        ConfigError: the adapter cannot be truncated to that rank.
    """
    require_truncation(cfg, rank)
    for model in models.values():
        for _, layer in adapted(model):
            assert isinstance(layer, LoraLayer)
            into, out = layer.lora_A[ADAPTER_NAME], layer.lora_B[ADAPTER_NAME]
            into.weight = nn.Parameter(into.weight[:rank].clone())
            out.weight = nn.Parameter(out.weight[:, :rank].clone())
            if cfg.alpha is not None:
                layer.scaling[ADAPTER_NAME] = cfg.alpha / rank
