"""What a training keeps in the memory of each GPU, of its node and on disk, from counts alone.

Bytes per parameter as DeepSpeed 0.19 keeps them (Rajbhandari et al., ZeRO, arXiv:1910.02054,
section 3, with the fp32 gradients and the buckets of this engine's own configuration), checked
against the engine's tensors in tests/ranks/test_training_footprint.py. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sarhpc.training.config import OffloadConfig, TrainConfig

LARGEST_BUCKET = 100_000_000
"""Most numbers that are reduced or gathered in one message."""
LARGEST_GATHERED = 1_000_000_000
"""Parameters that ZeRO-3 keeps gathered before it releases any (DeepSpeed's own default)."""

GIB = 2.0**30
RESERVED_BYTES = 1.5 * GIB
"""Estimate: CUDA context, libraries, their workspaces and NCCL's buffers."""
FRAGMENTATION = 0.08
"""Estimate: share of what is allocated that the allocator cannot hand out again."""


PEAKS = {
    "A100": 312e12,
    "A30": 165e12,
    "A40": 149.7e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "L40S": 362e12,
    "B200": 2250e12,
}
"""GPU -> dense bf16 operations per second by its data sheet; the first name that fits counts."""


@dataclass(frozen=True)
class Card:
    """A kind of GPU, by its data sheet; the memory is what torch reports of it."""

    name: str
    memory_bytes: float
    bf16_flops: float
    """Dense bf16 operations per second."""
    fp32_flops: float
    """fp32 operations per second."""
    utilisation: float
    """Share of the bf16 peak that a published training of this kind reached."""
    source: str
    """Whose that share is."""


_A100 = (PEAKS["A100"], 19.5e12, 0.28, "SD2 at 512 px with cached latents, MosaicML")
CARDS = (
    Card("A100-40", 39.4 * GIB, *_A100),
    Card("A100-80", 79.2 * GIB, *_A100),
    Card("H100-80", 79.1 * GIB, PEAKS["H100"], 67e12, 0.33, "SDv2, MLPerf Training v4.1"),
    Card("H200-141", 139.8 * GIB, PEAKS["H200"], 67e12, 0.354, "SDv2, MLPerf Training v5.0"),
)


@dataclass(frozen=True)
class Footprint:
    """Bytes on one GPU, by what they are for, and those offloaded from it."""

    weights: float
    gradients: float
    optimizer: float
    """fp32 masters and both moments."""
    average: float
    buffers: float
    """Buckets of collectives, gathered parameters, and the autoencoder."""
    activations: float
    """The larger of a micro-batch's forward and backward pass and of its encoding."""
    host: float = 0.0
    """Offloaded to the memory of the node."""
    disk: float = 0.0
    """Offloaded to a disk of the node."""

    @property
    def total(self) -> float:
        """All of them on the GPU."""
        states = self.weights + self.gradients + self.optimizer + self.average
        return states + self.buffers + self.activations

    def needed(self) -> float:
        """Memory a GPU must have: the total, what fragmentation takes, and what is reserved."""
        return self.total * (1 + FRAGMENTATION) + RESERVED_BYTES


@dataclass(frozen=True)
class Counts:
    """Numbers of a training that its memory follows from."""

    parameters: int
    """Of U-Net and text encoders."""
    learned: int
    autoencoder: int
    activation_bytes: float
    encode_bytes: float


def footprint(cfg: TrainConfig, counts: Counts, world: int) -> Footprint:
    """Bytes on each of `world` GPUs."""
    stage, width = cfg.zero_stage, width_of(cfg)
    learned, share = counts.learned, counts.learned / world
    owned = learned if stage == 0 else share
    held = Footprint(
        weights=width * (counts.parameters if stage < 3 else counts.parameters / world),
        gradients=_gradients(cfg, learned, share),
        # At stage 0, always fp32, the weights are their own masters.
        optimizer=(8 if stage == 0 else 12) * owned,
        average=4 * owned if cfg.ema_decay > 0 else 0,
        buffers=_buffers(cfg, counts) + 4 * counts.autoencoder,
        activations=max(counts.activation_bytes, counts.encode_bytes),
    )
    return held if cfg.offload is None else _offloaded(cfg, cfg.offload, held, share)


def _offloaded(
    cfg: TrainConfig, offload: OffloadConfig, held: Footprint, share: float
) -> Footprint:
    """`held` with what `offload` takes off the GPU where it is instead."""
    if offload.optimizer == "cpu":
        # Beside gradients in fp32, a copy: of the new weights on their way back up to stage 2, of
        # the gradients at stage 3.
        copies = 4 + (width_of(cfg) if cfg.zero_stage < 3 else 4)
        moved = held.optimizer + held.average + copies * share
        # Stages 2 and 3 reduce bucket by bucket, straight to the node.
        kept = held.gradients if cfg.zero_stage == 1 else 0.0
        held = replace(held, optimizer=0, average=0, gradients=kept, host=moved)
    if offload.parameters == "cpu":
        return replace(held, weights=0, host=held.host + held.weights)
    if offload.parameters == "nvme":
        return replace(held, weights=0, disk=held.weights)
    return held


def width_of(cfg: TrainConfig) -> int:
    """Bytes of a weight in the arithmetic."""
    return 2 if cfg.precision == "bf16" else 4


def _gradients(cfg: TrainConfig, learned: int, share: float) -> float:
    """Gradients kept between backward pass and update, fp32 in any precision.

    Stage 3 keeps a rank's own share, stage 2 too, of which the update makes a flat copy; 0 and 1
    keep all of them, and stage 1 in bf16 those in bf16 too, until they are added up.
    """
    if cfg.zero_stage >= 2:
        return (8 if cfg.zero_stage == 2 else 4) * share
    if cfg.zero_stage == 1 and cfg.precision == "bf16":
        return (4 + 2) * learned
    return 4 * learned + (4 * share if cfg.zero_stage == 1 else 0)


def _buffers(cfg: TrainConfig, counts: Counts) -> float:
    width = width_of(cfg)
    bucket = width * min(counts.learned, LARGEST_BUCKET)
    if cfg.zero_stage < 3:
        # Two, so that one is reduced while the other fills.
        return 2 * bucket
    return 2 * bucket + width * min(counts.parameters, LARGEST_GATHERED)


def checkpoint_bytes(cfg: TrainConfig, learned: int) -> float:
    """Bytes of one checkpoint over all ranks: weights, masters, moments, average."""
    optimizer = 8 if cfg.zero_stage == 0 else 12
    return (width_of(cfg) + optimizer + (4 if cfg.ema_decay > 0 else 0)) * float(learned)


def gpu_hours(card: Card, cfg: TrainConfig, flops: float) -> float:
    """Hours of one `card`, or in sum of several, for `flops` at its published utilisation.

    The share of the bf16 peak is taken for that of fp32 too, where nobody publishes one.
    """
    peak = card.bf16_flops if cfg.precision == "bf16" else card.fp32_flops
    return flops / (peak * card.utilisation) / 3600
