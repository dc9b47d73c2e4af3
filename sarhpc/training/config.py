"""Configuration of a training: model, data, optimisation, parallelism, checkpoints, logging."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from sarhpc.diffusion.config import AdapterConfig, ControlConfig, TokenConfig

TRANSIENT: dict[str, Any] = {"transient": True}
ADDED: dict[str, Any] = {"added": True}


@dataclass
class PriorConfig:
    """Images of what the base model knows, trained on beside the tiles so that it stays known."""

    shards: str | None = None
    """Folder with their shards, those in folders below it too; null takes those that the base model
    makes first, in the stage `prior` of a run."""
    image_member: str = "optic.png"
    """Image taken from each sample: `optic.png` or `sar.png`, of the size of the tiles."""
    prompt: str | None = "aerial photography"
    """What all of them are called; null takes each sample's own caption."""
    weight: float = 1.0
    """Weight of their loss beside that of the tiles."""


@dataclass
class OffloadConfig:
    """What lies outside the GPU while it is not needed: slower steps, larger models."""

    optimizer: str = "cpu"
    """Where fp32 masters, moments and averaged weights lie: `none` on the GPU, `cpu` in the memory
    of the node, where the update is computed then. Needs `zero_stage` 1 to 3."""
    parameters: str = "none"
    """Where the weights lie between uses: `none` on the GPU, `cpu` in the memory of the node,
    `nvme` on its disk. Needs `zero_stage=3`."""
    nvme_path: str | None = None
    """Folder on a disk of the node, for `parameters=nvme`."""
    pin_memory: bool = True
    """Lock what is offloaded in memory: faster copies, but it counts against `ulimit -l`."""


class EngineConfig(Protocol):
    """Options of the DeepSpeed engine, whatever it trains; fields as in TrainConfig."""

    @property
    def micro_batch(self) -> int:
        """Samples per forward pass of one rank."""

    @property
    def grad_clip(self) -> float:
        """Largest gradient norm; 0 leaves gradients as they are."""

    @property
    def zero_stage(self) -> int:
        """What is sharded, 0 to 3."""

    @property
    def precision(self) -> str:
        """`fp32`, or `bf16` with fp32 master weights."""

    @property
    def offload(self) -> OffloadConfig | None:
        """What lies outside the GPU."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Options of the trainer itself, whatever it trains; fields as in TrainConfig."""

    steps: int
    """Optimiser steps."""
    global_batch: int
    """Samples per optimiser step over all ranks."""
    micro_batch: int
    """Samples per forward pass of one rank."""
    grad_clip: float
    """Largest gradient norm; 0 leaves gradients as they are."""
    torch_clips: bool = False
    """At stage 0 torch clips instead of DeepSpeed, whose norm is rounded otherwise."""
    seed: int
    """Root of every draw."""
    ema_decay: float | None = None
    """Decay of the averaged weights; 0 or None keeps no average, None reports no decay either."""
    on_nonfinite: str = "stop"
    """What a step does whose loss or gradient is not finite: `stop` or `skip`."""
    skip_in_a_row: int = 5
    """Steps that may be skipped one after the other; the next one stops."""
    skip_in_all: int = 100
    """Steps that may be skipped in the whole training; the next one stops."""
    zero_stage: int = 0
    """What DeepSpeed shards: 0 nothing, 1 optimiser, 2 and gradients, 3 and parameters."""
    precision: str = "fp32"
    """`fp32`, or `bf16` with fp32 master weights."""
    checkpoint_every_steps: int | None = None
    """Steps between checkpoints; None leaves it to the clock."""
    checkpoint_every_s: float = 900.0
    """Seconds between checkpoints."""
    log_every_steps: int = 1
    """Steps between rows of metrics.jsonl."""
    log_last_step: bool = False
    """Write a row for the last step whatever its number."""
    tensorboard: bool = False
    """Write the rows of metrics.jsonl as TensorBoard scalars too."""
    wandb: bool = False
    """Write the rows of metrics.jsonl as an offline run of W&B too, when an attempt ends."""
    offload: OffloadConfig | None = None
    """Keep a part of the training's state in the memory of the node; None keeps all on the GPU."""


@dataclass
class JudgeConfig:
    """Each validation grid compared with held-out real tiles, and a checkpoint saved with it."""

    splits: list[str] = field(default_factory=lambda: ["val"])
    """Splits whose tiles judge; what chooses a checkpoint cannot prove it, so leave `test` out."""
    tiles: int = 256
    """Most tiles taken."""
    choose: str = "best"
    """What is exported: the `best` checkpoint by its grid's score, or the `last`."""


@dataclass
class ExportConfig:
    """What the exported folder holds beside the weights in float32."""

    variants: list[str] = field(default_factory=list)
    """The weights in other types too: `fp16`, `bf16`, each half the size."""
    adapter_rank: int | None = field(default=None, metadata=ADDED)
    """Directions of a `dylora` adapter that are exported; null all of them."""


@dataclass
class EncodeConfig:
    """Tiles encoded to latents once, before training; the autoencoder stands still anyway."""

    threads: int = 1
    """CPU threads of the arithmetic; on a CPU the bits depend on it."""


@dataclass
class TrainConfig:
    """Full fine-tune of U-Net and text encoders; the defaults are the paper's (section 4.1)."""

    base_model: str = "fetched:sd15"
    """Bundle to start from: a diffusers folder, `embedded:NAME`, `fetched:NAME`, or a checkpoint
    in one file with a folder of its shapes beside it."""
    random_init: bool = False
    """Keep the base's shapes, tokenizer and autoencoder; draw U-Net and text encoder anew."""
    prediction_type: str | None = None
    """What the U-Net learns: `epsilon` (noise) or `v_prediction`; None as the base model does."""
    zero_terminal_snr: bool = False
    """Last timestep without any signal, trailing timesteps in sampling: the mean level of an image
    is learnt too (Lin et al., arXiv:2305.08891). Needs `v_prediction`."""
    image_member: str = "sar.png"
    """Image the model learns to make: `sar.png` or `optic.png`."""
    caption_dropout: float = 0.1
    """Share of captions replaced by the empty one, so that guidance has an unconditional branch."""
    min_snr_gamma: float | None = None
    """Gamma of the min-SNR loss weighting (5 is usual); None weighs every timestep the same."""
    noise_offset: float = 0.0
    """Standard deviation of a constant added to the noise of each latent channel."""
    azimuth_flip: bool = False
    """Flip half of the tiles along azimuth (rows), and with them the words for top and bottom in
    their captions; along range would move the sensor. Refused where range is not known to run along
    columns (`imported.range_direction`)."""
    shuffle_captions: bool = False
    """Give every image the caption of another: the control that shows what captions teach."""
    cache_latents: bool = False
    """Keep mean and log-variance of every encoded tile in memory; encode each tile once."""

    adapter: AdapterConfig | None = None
    """Train a low-rank adapter instead of the weights themselves; null trains these in full."""
    token: TokenConfig | None = None
    """Learn a new token too; alone with `lr_unet=0` and `lr_text_encoder=0`."""
    control: ControlConfig | None = None
    """Train a ControlNet instead, which steers the base by a layer of the tile; U-Net and text
    encoders stand still, whatever their rates."""
    prior: PriorConfig | None = None
    """Prior preservation; doubles the images of a step. Null, as in the paper's final choice."""

    epochs: int = 12
    """Passes over the data."""
    max_steps: int | None = None
    """Optimiser steps after which training ends even inside an epoch."""
    global_batch: int = 16
    """Samples per optimiser step over all ranks (the paper's 16)."""
    micro_batch: int = 2
    """Most samples per forward pass of one rank; a run takes the largest number up to it that
    divides a rank's share of `global_batch`, and keeps the one of its first start."""
    lr_unet: float = 5e-5
    """Learning rate of the U-Net or its adapter; 0 leaves it as it is."""
    lr_text_encoder: float = 5e-6
    """Learning rate of the text encoder or its adapter; 0 leaves it as it is."""
    lr_text_encoder_2: float | None = None
    """Learning rate of SDXL's second text encoder; None takes that of the first."""
    lr_schedule: str = "constant"
    """`constant` or `cosine` (to zero at the last step), both after the warm-up."""
    warmup_steps: int = 100
    """Steps over which both rates rise linearly from zero."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """Decay of AdamW's first and second moments."""
    adam_epsilon: float = 1e-8
    """Denominator offset of AdamW."""
    grad_clip: float = 1.0
    """Largest gradient norm over both groups; 0 leaves gradients as they are."""
    ema_decay: float = 0.9999
    """Decay of the averaged weights, approached as (1 + step) / (10 + step); 0 keeps no average."""
    on_nonfinite: str = field(default="stop", metadata=TRANSIENT)
    """What a step does whose loss or gradient is not finite: `stop` ends the training with exit 3,
    `skip` leaves its update out and goes on. The keys of its batch are written down either way."""
    skip_in_a_row: int = field(default=5, metadata=TRANSIENT)
    """Steps that may be skipped one after the other; the next one stops."""
    skip_in_all: int = field(default=100, metadata=TRANSIENT)
    """Steps that may be skipped in the whole training; the next one stops."""
    seed: int = 0
    """Root of data order, noise, timesteps, caption dropout and flips."""

    zero_stage: int = 2
    """What DeepSpeed shards: 0 nothing, 1 optimiser, 2 and gradients, 3 and parameters."""
    precision: str = "bf16"
    """`fp32`, or `bf16` with fp32 master weights."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more arithmetic."""
    channels_last: bool = field(default=False, metadata=ADDED)
    """Let U-Net and ControlNet compute with channels innermost, as tensor cores read convolutions;
    rounds sums in another order."""
    compile: bool = field(default=False, metadata=ADDED)
    """Let torch compile the blocks that the U-Net repeats; takes longer at the first start, as
    later ones read what it kept, and rounds in another order. GPUs only, not with `zero_stage=3` or
    a ControlNet."""
    fused_optimizer: bool | None = field(default=None, metadata=ADDED)
    """AdamW in one kernel over all weights; None does so on GPUs."""
    offload: OffloadConfig | None = field(default=None, metadata=ADDED)
    """Keep a part of the training's state in the memory of the node; null keeps all on the GPU."""
    fit: str | None = field(default=None, metadata=ADDED)
    """`auto` or `exact` choose `micro_batch`, `gradient_checkpointing` and `zero_stage` by the
    memory of the GPUs (on CPUs: of the node) at the first start, whatever those say, and keep them;
    `auto` also gives up `deterministic` on GPUs. Null takes the three as they are."""
    deterministic: bool = True
    """Ask torch for deterministic kernels, so that a resumed run repeats the bits; not on GPUs
    under `fit=auto`."""

    checkpoint_every_steps: int | None = None
    """Steps between checkpoints; None leaves it to the clock."""
    checkpoint_every_s: float = 900.0
    """Seconds between checkpoints."""
    keep_last: int = 2
    """Newest checkpoints kept."""
    keep_every_steps: int | None = field(default=None, metadata=ADDED)
    """Keep the checkpoints at multiples of this many steps too; None keeps none of them."""

    validation_every_steps: int | None = None
    """Steps between image grids; None makes one per epoch, 0 none at all."""
    validation_prompts: list[str] = field(default_factory=list)
    """Fixed prompts of the grid, with the activation token."""
    validation_seeds: list[int] = field(default_factory=lambda: [0, 1])
    """Fixed seeds of the grid."""
    validation_steps: int = 25
    """Denoising steps per grid image."""
    validation_guidance: float = 7.5
    """Classifier-free guidance scale of grid images."""
    image_px: int | None = None
    """Side of grid images, pixels; None takes the model's own."""
    judge: JudgeConfig | None = field(default=None, metadata=ADDED)
    """Compare every grid with held-out real tiles (E1, E3-E5) and export the checkpoint whose
    grid is nearest; some thirty images a grid tell more than four. Null judges none."""

    threads: int = 1
    """CPU threads per rank; on a CPU the bits depend on it, so it stays over a resume."""
    loader_threads: int | None = field(default=None, metadata=TRANSIENT)
    """Threads per rank that read and decode samples ahead of the step; null takes the cores of the
    rank but one, 16 at most."""
    tensorboard: bool = field(default=True, metadata=TRANSIENT)
    """Write the rows of metrics.jsonl as TensorBoard scalars too."""
    wandb: bool = field(default=False, metadata=TRANSIENT)
    """Write the rows of metrics.jsonl as an offline run of W&B too, when an attempt ends."""
    log_every_steps: int = field(default=1, metadata=TRANSIENT)
    """Steps between rows of metrics.jsonl; timing parts are synchronised on these steps only."""
