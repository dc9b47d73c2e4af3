"""What to generate, and with which sampler."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from sarhpc.generation.adapters.config import AppliedAdapterConfig
from sarhpc.generation.controls.config import SteerConfig as SteerConfig
from sarhpc.generation.prompts.config import PromptTableConfig
from sarhpc.generation.scenes.config import SceneConfig
from sarhpc.generation.sources.config import ImageToImageConfig
from sarhpc.generation.sweeps.config import SweepConfig

GATE_LEAST_PX = 64
"""Fewest rows and columns of an image that the gate can measure."""


@dataclass
class CopiesConfig:
    """Images that repeat what the model was trained on, whatever their speckle."""

    false_alarms: float = 0.001
    """Share of images of other ground that may be taken for copies of training tiles."""
    shards: str | None = None
    """Folder of the shards that the model was trained on, searched recursively; null takes the
    tiles of split `train` of the run."""
    tiles: int = 100_000
    """Most training tiles that images are compared with, evenly from the first to the last: each
    takes 2.6 kB of the memory of every process."""


@dataclass
class OtherClassConfig:
    """Images that show another class than their prompt names, by a CLIP (E10)."""

    model: str | None = None
    """CLIP that reads images and captions: a folder, `embedded:NAME` or `fetched:NAME`; null takes
    the one that the stage `clip-train` of the run made."""
    false_rejects: float = 0.01
    """Share of real tiles of each class that may be taken for another one, beside those that the
    other tests reject. A class of fewer tiles than it needs (99 for 0.01) takes the least share
    that they allow, up to 0.1."""
    classes: dict[str, list[str]] | None = None
    """Class -> phrases that name it in captions; null takes those of `evaluate.text.classes`, by
    default water, forest, field and town."""
    tiles: int = 1000
    """Most real tiles that the limits are from, drawn evenly over flight lines."""
    shards: str | None = None
    """Folder of the shards of these tiles, with captions, searched recursively; null takes the
    tiles that the other limits are from."""


@dataclass
class GateConfig:
    """A verdict on each image, by limits from real tiles that no model was trained on."""

    false_rejects: float = 0.01
    """Share of real tiles that all tests together may reject. Where there are too few tiles for
    it, the least share that they allow, up to 0.5; 899 tiles allow 0.01, 89 allow 0.1."""
    tiles: int = 1000
    """Most real tiles that the limits are from, drawn evenly over flight lines."""
    shards: str | None = None
    """Folder of the shards of these tiles, searched recursively; null takes the held-out tiles of
    the run."""
    splits: list[str] | None = field(default=None, metadata={"added": True})
    """Splits of the run whose tiles the limits are from; null takes `evaluate.real_splits`. Where
    the corpus is then tested on split test, `[val]` keeps its tiles out of the choice."""
    memorised: CopiesConfig | None = field(default=None, metadata={"added": True})
    """Quarantine copies of training tiles as well (E11); null does not look for them."""
    other_class: OtherClassConfig | None = field(default=None, metadata={"added": True})
    """Quarantine images of another class than their prompt names as well; null does not look."""
    redraws: int = 3
    """How often an image that was quarantined is drawn again, with another seed; then it is left
    out of the corpus, and reported."""


AREAS_LEAST_PX = 32
"""Fewest rows and columns of an image whose speckle can be measured."""


@dataclass
class HomogeneousAreasConfig:
    """Squares of each image in which nothing but speckle varies, listed in its metadata."""

    looks: float = 1.0
    """Number of looks of the speckle of the archive."""
    side_px: int = 32
    """Side of the squares, px, a multiple of 4 and at least 16."""


@dataclass
class GenerateConfig:
    """Prompts, counts and sampling of one synthetic corpus."""

    SECTION: ClassVar[str] = "generate"
    """Section of these settings in the configuration of a run."""
    prompts: list[str] = field(default_factory=list)
    """Scene descriptions, without the words of `prompt_template`; before those of the file."""
    prompts_file: str | None = None
    """More prompts: `.txt` with one per line, or `.jsonl` with objects that have a `prompt`."""
    table: PromptTableConfig | None = field(default=None, metadata={"added": True})
    """Prompts with labels from a table or a grammar, covered as planned, instead of `prompts`."""
    prompt_template: str = "A SAR image of {prompt}"
    """Prompt of the model; `{prompt}` is the description, the rest are trigger words. With a table
    also `{band}`, `{gsd}` (m) and `{incidence}` (degrees), from the labels of the row."""
    negative_prompt: str = ""
    """Negative prompt of the guidance."""
    images: int | None = None
    """Total number of images, using the prompts in turn; null: `images_per_prompt` each."""
    images_per_prompt: int = 1
    """Images of each prompt when `images` is null."""
    seed: int = 0
    """Seed of the run; the seed of an image is a hash of it, the prompt and its repetition."""
    steps: int = 50
    """Denoising steps."""
    guidance: float = 7.5
    """Classifier-free guidance scale; 1 or less switches it off."""
    guidance_rescale: float = field(default=0.0, metadata={"added": True})
    """Rescaling of the guided noise to the standard deviation of the conditional one, 0 to 1: with
    zero terminal SNR strong guidance overexposes images; 0.7 (Lin et al., arXiv:2305.08891)."""
    adapter: str | None = None
    """Low-rank adapter for the model, a file or its folder; null: the one in the model's folder, if
    any."""
    adapter_weight: float = 1.0
    """Scale of the adapter; at 0 the base model generates."""
    adapters: list[AppliedAdapterConfig] = field(default_factory=list, metadata={"added": True})
    """Several adapters at once, LoRA, LoHa or LoKr, each with its weight, instead of `adapter` and
    `adapter_weight`; the one in the model's folder is applied only if it is among them."""
    steer: SteerConfig | None = None
    """Conditioning layers for a model with a ControlNet; null for any other model."""
    image_to_image: ImageToImageConfig | None = field(default=None, metadata={"added": True})
    """Begin with images, partly noised, instead of pure noise; null is text to image."""
    scene: SceneConfig | None = field(default=None, metadata={"added": True})
    """Images larger than the tiles of the model; null makes images of one window."""
    gate: GateConfig | None = field(default=None, metadata={"added": True})
    """Accept or quarantine each image, and draw quarantined ones again; null accepts every image of
    finite pixels."""
    homogeneous_areas: HomogeneousAreasConfig | None = field(default=None, metadata={"added": True})
    """List the homogeneous areas of each image; null lists none. Needs a contract of the model."""
    sweep: SweepConfig | None = field(default=None, metadata={"added": True})
    """Image each layout under many sensor settings; `images`, `images_per_prompt` and the counts of
    a table then count layouts. Null makes one image of each."""
    scheduler: str = "ddim"
    """Sampler: ddim, euler, dpmsolver, pndm, unipc, heun (two predictions a step) or
    euler_ancestral (draws noise at each step)."""
    schedule: str | None = field(default=None, metadata={"added": True})
    """Noise levels that sampling visits, whatever the betas of training, which stay those of the
    model: `linear` or `scaled_linear` at evenly spaced timesteps, named as the model's betas;
    `trailing`, spaced from the last timestep; `exponential`, `karras` or `beta`, levels by that
    law, for euler, dpmsolver, unipc and heun. Null: as the model's folder says."""
    height_px: int | None = None
    """Image height, px, a multiple of 8; null: that of the tiles the model was trained on."""
    width_px: int | None = None
    """Image width, px, a multiple of 8; null: that of the tiles the model was trained on."""
    dtype: str = "float32"
    """Dtype of the model: float32, float16 or bfloat16."""
    batch: int = 4
    """Images per batch; fixed, because another batch shape changes the bits (slightly)."""
    threads: int = 1
    """CPU threads; fixed, because another count changes the bits (slightly)."""
    shard_samples: int = 256
    """Images per shard, the unit of work and of retry: minutes, not hours."""
    pixel_m: float | None = 0.35
    """Pixel spacing that the model was trained at, m. Images carry the spacing of the model's
    contract, or none; another value than the default is compared with it before any is made."""


@dataclass
class PriorImagesConfig(GenerateConfig):
    """Regularisation images that the base model generates before training, as large as tiles."""

    SECTION: ClassVar[str] = "prior"
    prompts: list[str] = field(default_factory=lambda: ["aerial photography"])
    """Prompt of the base model, the same as `train.prior.prompt`."""
    prompt_template: str = "{prompt}"
    """The bare prompt, without trigger words that the base model was not trained on."""
    images: int | None = 1000
    """Total number of images, using the prompts in turn."""
    shard_samples: int = 64
    """Images per shard, the unit of work and of retry."""
