"""What to generate, and with which sampler."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass
class SteerConfig:
    """Layers of real tiles that a model with a ControlNet is steered by, one for each image."""

    shards: str | None = None
    """Folder of the shards with the layers, those in folders below it too; null takes the held-out
    tiles of the run. Images take the samples in turn, and their captions where no prompts are
    given."""
    layer: str = "edges"
    """What steers: `edges`, `segmentation`, `optical`, `coarse` or `other`; what the ControlNet
    learnt."""
    scale: float = 1.0
    """Weight of what the ControlNet adds; 0 leaves the image as if nothing steered it."""


@dataclass
class GenerateConfig:
    """Prompts, counts and sampling of one synthetic corpus."""

    SECTION: ClassVar[str] = "generate"
    """Where these settings stand in the configuration of a run."""
    prompts: list[str] = field(default_factory=list)
    """Scene descriptions, without the words of `prompt_template`; before those of the file."""
    prompts_file: str | None = None
    """More prompts: `.txt` with one a line, or `.jsonl` with objects that have a `prompt`."""
    prompt_template: str = "A SAR image of {prompt}"
    """What the model is asked; `{prompt}` stands for the description, the rest activates it."""
    negative_prompt: str = ""
    """What the guidance leads away from."""
    images: int | None = None
    """Number of images in all, taking the prompts in turn; null: `images_per_prompt` each."""
    images_per_prompt: int = 1
    """Images of each prompt when `images` is null."""
    seed: int = 0
    """Seed of the run; the seed of an image is a hash of it, the prompt and its repetition."""
    steps: int = 50
    """Denoising steps."""
    guidance: float = 7.5
    """Classifier-free guidance scale; 1 or less switches it off."""
    guidance_rescale: float = field(default=0.0, metadata={"added": True})
    """Share by which guided noise takes the spread of the prompt's own, 0 to 1: strong guidance
    overexposes images of a model with zero terminal SNR; 0.7 (Lin et al., arXiv:2305.08891)."""
    adapter: str | None = None
    """Low-rank adapter to put on the model, a file or its folder; null: the one in the model's
    folder, if there is one."""
    adapter_weight: float = 1.0
    """Share of the adapter that is applied; 0 switches it off, and the base model generates."""
    steer: SteerConfig | None = None
    """Layers for a model with a ControlNet; null for any other model."""
    scheduler: str = "ddim"
    """Sampler: ddim, euler, dpmsolver or pndm."""
    height_px: int | None = None
    """Image height, px, a multiple of 8; null: the size the model was trained at."""
    width_px: int | None = None
    """Image width, px, a multiple of 8; null: the size the model was trained at."""
    dtype: str = "float32"
    """Arithmetic of the model: float32, float16 or bfloat16."""
    batch: int = 4
    """Images sampled at once; fixed, because another batch shape gives (slightly) other bits."""
    threads: int = 1
    """CPU threads of the arithmetic; fixed, because another count gives (slightly) other bits."""
    shard_samples: int = 256
    """Images per shard, the unit of work and of retry: minutes, not hours."""
    pixel_m: float | None = 0.35
    """Ground spacing the model was trained at, m; recorded, not used."""


@dataclass
class PriorImagesConfig(GenerateConfig):
    """Regularisation images that the base model makes before it is trained; as large as tiles."""

    SECTION: ClassVar[str] = "prior"
    prompts: list[str] = field(default_factory=lambda: ["aerial photography"])
    """What the base model is asked, the same as `train.prior.prompt`."""
    prompt_template: str = "{prompt}"
    """No words around the prompt: it is to be one of what the base model knows."""
    images: int | None = 1000
    """Number of images in all, taking the prompts in turn."""
    shard_samples: int = 64
    """Images per shard, the unit of work and of retry."""
