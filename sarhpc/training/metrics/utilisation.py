"""How much of the machine's arithmetic a training uses: TFLOP/s of the model, and their share.

Model FLOPs utilisation (Chowdhery et al., PaLM, arXiv:2204.02311, appendix B): the operations that
the model has, counted from its modules, over the time of the step and the peak of the GPU. What
checkpointing repeats and the autoencoder are not counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from hpc.job.agreement import RankGroup
from sarhpc.training.config import TrainConfig
from sarhpc.training.estimate.footprint import PEAKS
from sarhpc.training.estimate.operations import image_flops


@dataclass(frozen=True)
class Utilisation:
    """Arithmetic of one step on one rank."""

    flops: float
    """Operations of the model."""
    peak: float | None
    """Operations per second that the GPU can do; None where it is unknown."""

    def row(self, step_s: float) -> dict[str, float]:
        """`tflops` (per rank and second) and, where the peak is known, `mfu` of a step."""
        rate = self.flops / step_s
        share = {} if self.peak is None else {"mfu": rate / self.peak}
        return {"tflops": rate / 1e12, **share}


def utilisation(cfg: TrainConfig, base: Path, image_px: int, ranks: RankGroup) -> Utilisation:
    """The arithmetic of a step on tiles of `image_px` px; takes seconds, once."""
    images = cfg.global_batch / ranks.world * (1 if cfg.prior is None else 2)
    flops = image_flops(cfg, base, image_px) * images
    if ranks.device.type != "cuda" or cfg.precision != "bf16":
        return Utilisation(flops, None)
    return Utilisation(flops, peak_of(torch.cuda.get_device_name(ranks.device)))


def peak_of(device: str) -> float | None:
    """The bf16 peak of a GPU by the name torch gives it, operations per second.

    >>> peak_of("NVIDIA A100-SXM4-80GB"), peak_of("NVIDIA RTX A4000")
    (312000000000000.0, None)
    """
    return next((peak for name, peak in PEAKS.items() if re.search(rf"\b{name}\b", device)), None)
