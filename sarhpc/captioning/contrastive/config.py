"""Configuration of the contrastive fine-tuning of CLIP."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

TRANSIENT: dict[str, Any] = {"transient": True}
CLIP_MODEL = "openai/clip-vit-base-patch32"


@dataclass
class ClipModelConfig:
    """Shape of a new CLIP; the defaults make about 0.7 million parameters."""

    image_px: int = 64
    """Side of the images it sees, pixels; tiles are averaged down to it."""
    patch_px: int = 8
    """Side of a vision patch, pixels."""
    vision_width: int = 96
    """Width of the vision transformer."""
    vision_layers: int = 4
    """Blocks of the vision transformer."""
    vision_heads: int = 4
    """Attention heads of the vision transformer."""
    text_width: int = 64
    """Width of the text transformer."""
    text_layers: int = 2
    """Blocks of the text transformer."""
    text_heads: int = 4
    """Attention heads of the text transformer."""
    max_positions: int = 48
    """Most word pieces of a text."""
    vocabulary: int = 768
    """Most entries of the tokenizer that is trained with it, 514 at least."""
    projection: int = 64
    """Width of the space that images and texts share."""


@dataclass
class ClipJudgeConfig:
    """What chooses the checkpoint that is published."""

    among: int = 10
    """Captions that the caption of a held-out tile is searched among, its own included."""
    choose: str = "best"
    """What is published: the `best` checkpoint by the share of tiles whose own caption is nearest,
    or the `last`."""


@dataclass
class ClipTrainConfig:
    """The fine-tuning of a CLIP on the captioned radar tiles of a run."""

    base_model: Optional[str] = CLIP_MODEL  # noqa: UP045 - OmegaConf reads Optional
    """CLIP to start from: a folder, `embedded:NAME`, `fetched:NAME` or a model name in `HF_HOME`;
    null builds `new` and trains a tokenizer on the captions."""
    new: ClipModelConfig = field(default_factory=ClipModelConfig)
    """Shape of a new model."""
    text: str = "txt"
    """Caption that is learnt: `txt`, the training text, or `SHORT`, `MID` or `LONG`."""
    exchanged_relations: bool = field(default=False, metadata={"added": True})
    """Contrast each tile with its own caption too in which a relation is exchanged (near and far
    range, left and right, upper and lower), one an epoch in turn. It costs a second pass of the
    text encoder."""
    azimuth_flip: bool = field(default=False, metadata={"added": True})
    """Flip half of the tiles along azimuth (rows), as `train.azimuth_flip`."""

    steps: int = 2000
    """Optimiser steps."""
    batch: int = 256
    """Tiles per step over all ranks. Each is contrasted with all others of the step whose
    caption is another, however the batch is divided."""
    micro_batch: Optional[int] = None  # noqa: UP045
    """Most tiles per forward pass of one rank, as `train.micro_batch`; smaller ones cost a second
    forward pass and change nothing else. Null takes a rank's whole part at once."""
    lr: float = 1e-5
    """Peak learning rate of AdamW (1e-3 for a new small model)."""
    warmup_steps: int = 100
    """Steps of linear rise; a half cosine to zero follows."""
    weight_decay: float = 0.1
    """Decoupled decay of weight matrices; biases, norms, positions and the scale have none."""
    grad_clip: float = 1.0
    """Largest gradient norm; 0 leaves gradients as they are."""
    ema_decay: float = 0.0
    """Decay of the averaged weights, which are validated and published, approached as
    (1 + step) / (10 + step); 0 keeps no average."""
    on_nonfinite: str = field(default="stop", metadata=TRANSIENT)
    """What a step does whose loss or gradient is not finite: `stop` ends the training with exit 3,
    `skip` leaves its update out and goes on. The keys of its tiles are written down either way."""
    skip_in_a_row: int = field(default=5, metadata=TRANSIENT)
    """Steps that may be skipped one after the other; the next one stops."""
    skip_in_all: int = field(default=100, metadata=TRANSIENT)
    """Steps that may be skipped in the whole training; the next one stops."""
    seed: int = 0
    """Root of new weights, order, and the captions that a judge searches among."""
    threads: int = 1
    """CPU threads of a rank; on a CPU the bits depend on it."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto` for CUDA where there is one."""
    zero_stage: int = 0
    """What DeepSpeed shards over the ranks: 0 nothing, 1 optimiser, 2 and gradients, 3 and
    parameters."""
    precision: str = "fp32"
    """`fp32`, or `bf16` with fp32 master weights (not with `zero_stage=0`)."""
    checkpoint_every_steps: Optional[int] = None  # noqa: UP045
    """Steps between checkpoints; null leaves it to the clock."""
    checkpoint_every_s: float = 900.0
    """Seconds between checkpoints."""
    keep_last: int = 2
    """Newest checkpoints kept."""
    save_dtype: str = "float32"
    """Number format of the saved weights: float32 or float16."""

    val_every: int = 200
    """Steps between validations on tiles of split `val`, if there are any."""
    val_tiles: int = 512
    """Most tiles of a validation, evenly over the split."""
    judge: Optional[ClipJudgeConfig] = None  # noqa: UP045
    """Judge each validation and publish the best checkpoint. What chooses a checkpoint cannot prove
    it: measure the model on tiles of `test`. Null publishes the last."""
    log_every: int = field(default=20, metadata=TRANSIENT)
    """Steps between rows of metrics.jsonl."""
    readers: int = field(default=2, metadata=TRANSIENT)
    """Threads that read and decode tiles ahead of the step."""
