"""Configuration of the caption stage and of the fine-tuning of BLIP."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

TRANSIENT: dict[str, Any] = {"transient": True}
ADDED: dict[str, Any] = {"added": True}
BLIP_MODEL = "fetched:blip"


@dataclass
class TemplateConfig:
    """How a caption becomes the text of a sample."""

    token: str = "An aerial view of"  # noqa: S105 - no password
    """Activation phrase of training texts; prompts for SAR use another one ("A SAR image of")."""
    pattern: str = "{token} {caption}"
    """Training text: any of {token}, {caption}, {band}, {gsd}, {incidence} (see `metadata`)."""
    variant: str = "SHORT"
    """Which length replaces {caption} in training texts: SHORT, MID or LONG."""
    metadata: list[str] = field(
        default_factory=lambda: ["{band}-band", "{gsd} m", "incidence {incidence} degrees"]
    )
    """Phrases that LONG appends, of {band} (letter), {gsd} (m) and {incidence} (degrees); a phrase
    whose value a sample lacks is left out."""
    metadata_dropout: float = 0.0
    """Share of metadata phrases left out, each drawn from the sample's key (0..1)."""
    strip_openings: list[str] = field(
        default_factory=lambda: [
            "an aerial view of",
            "an aerial photo of",
            "an aerial image of",
            "a satellite image of",
            "there is",
            "there are",
            "this is",
            "here is",
            "it is",
            "we can see",
        ]
    )
    """Openings taken off a caption, so that the activation phrase is not followed by another."""


@dataclass
class ClipConfig:
    """CLIP, which scores how well a text fits an image: it picks phrases, or among captions."""

    model: str = "openai/clip-vit-base-patch32"
    """CLIP folder (config, safetensors, processor, tokenizer), or a model name in `HF_HOME`."""
    phrases: list[str] = field(default_factory=list)
    """What `captioner=clip` can say of a tile: "dense forest", "a river"."""
    prompts: list[str] = field(default_factory=lambda: ["a satellite photo of {phrase}."])
    """Sentences with {phrase} CLIP compares with the image; their directions are averaged."""
    keep: int = 2
    """Most phrases in a caption."""
    min_share: float = 0.1
    """Share of the softmax over all phrases below which a phrase is not said (0..1)."""
    pattern: str = "{phrases}"
    """Caption around the {phrases} kept, which are joined as in "a, b and c"."""
    candidates: int = 3
    """Captions of `captioner=blip` and `git` that CLIP picks from, for each tile; with beams no
    more than there are beams."""


@dataclass
class CaptionConfig:
    """The captioner, the checks of its captions, and the policies for tiles without one."""

    captioner: str = "blip"
    """`blip` and `git` look at the optical tile and write, `clip` looks at it and picks among given
    phrases; `truth` repeats what the procedural archive knows; `given` takes the text that imported
    images came with."""
    model: str = BLIP_MODEL
    """BLIP or GIT folder (config, safetensors, processor, tokenizer), `fetched:NAME`, or a model
    name in `HF_HOME`."""
    clip: Optional[ClipConfig] = field(default=None, metadata=ADDED)  # noqa: UP045 - OmegaConf
    """CLIP: what `captioner=clip` says; beside `blip` and `git` it picks among their captions."""
    prompt: str = ""
    """Opening words BLIP or GIT continues; they are not part of the caption."""
    batch: int = 16
    """Images per forward pass. A short batch is filled up: the shape never depends on the data."""
    max_tokens: int = 40
    """Most word pieces of a caption."""
    decoding: str = "beam"
    """`beam` (most likely caption) or `nucleus` (drawn, seeded by the tile's key)."""
    beams: int = 3
    """Beams of `beam`; 1 is greedy."""
    top_p: float = 0.9
    """Probability mass `nucleus` draws from."""
    temperature: float = 1.0
    """Softmax temperature of `nucleus`."""
    seed: int = 0
    """Root of every draw."""
    threads: int = 1
    """CPU threads of the captioner; part of what fixes its floating-point results."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto` for CUDA where there is one."""
    dtype: Optional[str] = field(default=None, metadata=ADDED)  # noqa: UP045
    """Dtype of the weights: float32, float16 or bfloat16. Null takes float32 on a CPU and, on
    CUDA, float16 for BLIP and bfloat16 for the others."""

    min_words: int = 2
    """A caption of fewer words is degenerate."""
    max_repeats: int = 2
    """A phrase of up to four words repeated in a row more often than this is degenerate."""
    degenerate: str = "reject"
    """Policy for a tile with a degenerate caption: `reject`, or `fallback` (to that text)."""
    missing_optical: str = "reject"
    """Policy for a tile without optical image: `reject`, or `fallback` (to that text)."""
    fallback: str = "the ground"
    """Caption of tiles kept without one of their own."""

    template: TemplateConfig = field(default_factory=TemplateConfig)
    """How captions become texts."""


@dataclass
class BlipModelConfig:
    """Shape of a new BLIP; the defaults make about 3 million parameters."""

    image_px: int = 128
    """Side of the images it sees, pixels."""
    patch_px: int = 16
    """Side of a vision patch, pixels."""
    vision_width: int = 192
    """Width of the vision transformer."""
    vision_layers: int = 4
    """Blocks of the vision transformer."""
    vision_heads: int = 4
    """Attention heads of the vision transformer."""
    text_width: int = 128
    """Width of the text decoder."""
    text_layers: int = 3
    """Blocks of the text decoder."""
    text_heads: int = 4
    """Attention heads of the text decoder."""
    max_positions: int = 64
    """Most word pieces of a text."""
    vocabulary: int = 1024
    """Most entries of the tokenizer that is trained with it."""


@dataclass
class CaptionSetConfig:
    """One set of captioned images."""

    kind: str = "shards"
    """`shards` (their `optic.png`); a published set in its own layout: `rsicd`, `ucm`, `sydney`,
    `nwpu` or `rsitmd`; a file of captions: `karpathy`, or `jsonl` (filename, captions)."""
    path: str = "???"
    """Root of the shards' split folders, folder of a published set, or the captions file (.json,
    .jsonl, may be gzipped)."""
    images: Optional[str] = None  # noqa: UP045 - OmegaConf reads Optional
    """Folder of the images of `karpathy` and `jsonl`; of a published set where it has another name
    than the published one."""
    split: str = "train"
    """Split that is taken (not of `jsonl`): train, val or test; RSITMD has train and test."""
    source: str = "truth"
    """Where `shards` keep the caption: `truth`, or `raw` (what a captioner said)."""
    skip_missing: bool = False
    """Leave out captions whose image is not there, instead of stopping."""
    without: Optional[str] = None  # noqa: UP045
    """Of `shards`: JSON file whose `duplicates` name samples to leave out (`tile.dedupe`)."""
    weight: float = field(default=1.0, metadata=ADDED)
    """Of a training set: how often an epoch shows its images; 0.5 shows each in every other."""
    name: Optional[str] = field(default=None, metadata=ADDED)  # noqa: UP045
    """What counts and metrics call the set; null for its kind or the name of its file or folder."""


@dataclass
class CaptionJudgeConfig:
    """Each validation judged on held-out captions, and a checkpoint saved with it."""

    by: str = "loss"
    """What judges: the validation `loss`, or a metric of captions against their references
    (`bleu_1` to `bleu_4`, `rouge_l`, `cider`)."""
    images: int = 256
    """Most images captioned for a metric, evenly from all held-out sets together; a loss takes
    `val_images`."""
    choose: str = "best"
    """What is published: the `best` checkpoint, or the `last`."""


@dataclass
class CaptionTrainConfig:
    """The fine-tuning of BLIP on remote-sensing captions (paper, section 3.2)."""

    train: list[CaptionSetConfig] = field(default_factory=list)
    """Sets learnt from, together (the paper joins RSICD and UCM). An image in two of them counts
    once, with the captions of both; one that is held out is not learnt from."""
    val: list[CaptionSetConfig] = field(default_factory=list)
    """Sets held out: validation loss, and caption metrics before and after for each and together.
    An image in two of them counts in the first."""
    base_model: Optional[str] = BLIP_MODEL  # noqa: UP045
    """BLIP to start from; null builds `new` and trains a tokenizer on the captions."""
    new: BlipModelConfig = field(default_factory=BlipModelConfig)
    """Shape of a new model."""

    steps: int = 2000
    """Optimiser steps."""
    batch: int = 16
    """Images per step over all ranks."""
    micro_batch: Optional[int] = field(default=None, metadata=ADDED)  # noqa: UP045
    """Most images per forward pass of one rank, as `train.micro_batch`; null takes its whole part
    of the batch at once."""
    lr: float = 1e-5
    """Peak learning rate of AdamW (1e-3 for a new small model)."""
    warmup_steps: int = 100
    """Steps of linear rise; a half cosine to zero follows."""
    weight_decay: float = 0.05
    """Decoupled decay of weight matrices; biases, norms and positions have none."""
    grad_clip: float = 1.0
    """Largest gradient norm; 0 leaves gradients as they are."""
    label_smoothing: float = 0.0
    """Share of each target spread evenly over the vocabulary."""
    ema_decay: float = field(default=0.0, metadata=ADDED)
    """Decay of the averaged weights, which are validated and published, approached as
    (1 + step) / (10 + step); 0 keeps no average."""
    on_nonfinite: str = field(default="stop", metadata=TRANSIENT)
    """What a step does whose loss or gradient is not finite: `stop` ends the training with exit 3,
    `skip` leaves its update out and goes on. The names of its images are written down either
    way."""
    skip_in_a_row: int = field(default=5, metadata=TRANSIENT)
    """Steps that may be skipped one after the other; the next one stops."""
    skip_in_all: int = field(default=100, metadata=TRANSIENT)
    """Steps that may be skipped in the whole training; the next one stops."""
    prompt: str = ""
    """Opening words before every caption; no loss is counted on them."""
    max_tokens: int = 60
    """Captions are cut to this many word pieces."""
    seed: int = 0
    """Root of new weights, order and the choice among an image's captions."""
    threads: int = 1
    """CPU threads of a rank; on a CPU the bits depend on it."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto` for CUDA where there is one."""
    zero_stage: int = field(default=0, metadata=ADDED)
    """What DeepSpeed shards over the ranks: 0 nothing, 1 optimiser, 2 and gradients, 3 and
    parameters."""
    precision: str = field(default="fp32", metadata=ADDED)
    """`fp32`, or `bf16` with fp32 master weights (not with `zero_stage=0`)."""
    checkpoint_every_steps: Optional[int] = field(default=None, metadata=ADDED)  # noqa: UP045
    """Steps between checkpoints; null leaves it to the clock."""
    checkpoint_every_s: float = field(default=900.0, metadata=ADDED)
    """Seconds between checkpoints."""
    keep_last: int = field(default=2, metadata=ADDED)
    """Newest checkpoints kept."""
    save_dtype: str = "float32"
    """Number format of the saved weights: float32 or float16."""

    val_every: int = 200
    """Steps between validation losses."""
    val_images: int = 256
    """Images of a validation loss."""
    judge: Optional[CaptionJudgeConfig] = field(default=None, metadata=ADDED)  # noqa: UP045
    """Judge each validation and publish the best checkpoint. What chooses a checkpoint cannot prove
    it: test the captioner on images that are not in `val`. Null publishes the last."""
    eval_images: int = 1000
    """Images of each held-out set captioned for the metrics before and after; 0 measures none."""
    eval_beams: int = 3
    """Beams of those captions."""
    meteor: bool = field(default=False, metadata=ADDED)
    """METEOR too, where Java and the package pycocoevalcap (extra `meteor`) are installed."""
    log_every: int = field(default=20, metadata=TRANSIENT)
    """Steps between rows of metrics.jsonl."""
    readers: int = field(default=2, metadata=TRANSIENT)
    """Threads that read and decode images ahead of the step."""
