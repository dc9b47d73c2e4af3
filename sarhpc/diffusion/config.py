"""Shapes of a model bundle, and settings of its objective, autoencoder and adapters."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class UNetShape:
    """Shape of `UNet2DConditionModel`; the defaults are the embedded model, not SD 1.5."""

    sample_size: int = 16
    """Side of the latent image, px; an eighth of the side of the tile."""
    block_out_channels: list[int] = field(default_factory=lambda: [64, 96, 160])
    """Channels of each resolution level, finest first."""
    cross_attention: list[bool] = field(default_factory=lambda: [True, True, True])
    """Whether the level attends to the text, finest first."""
    layers_per_block: int = 1
    """Residual blocks per level."""
    attention_heads: int = 4
    """Attention heads at every level."""
    level_heads: list[int] | None = None
    """Attention heads of each level, finest first, in place of `attention_heads`."""
    transformer_layers: list[int] | None = None
    """Transformer layers in each attention of a level, finest first; None = one everywhere."""
    norm_groups: int = 32
    """Groups of GroupNorm; divides every channel count."""
    size_embedding: int = 256
    """Width of the embedding of each number of SDXL's micro-conditioning."""


@dataclass
class TextShape:
    """Shape of `CLIPTextModel`."""

    hidden: int = 160
    """Width of the text embedding, also the cross-attention width of the U-Net."""
    layers: int = 4
    """Transformer layers."""
    heads: int = 4
    """Attention heads."""
    intermediate: int = 640
    """Width of the feed-forward layer."""
    positions: int = 77
    """Longest prompt, tokens."""
    activation: str = "quick_gelu"
    """Activation of the feed-forward layer: `quick_gelu` (OpenAI) or `gelu` (OpenCLIP)."""


@dataclass
class AutoencoderShape:
    """Shape of `AutoencoderKL` with 3 image and 4 latent channels and reduction 8 a side."""

    block_out_channels: list[int] = field(default_factory=lambda: [16, 32, 64, 128])
    """Channels of the four resolutions, finest first (the finest takes most of the time)."""
    layers_per_block: int = 1
    """Residual blocks per level."""
    norm_groups: int = 8
    """Groups of GroupNorm; divides every channel count."""
    sample_size: int = 128
    """Side of the tile it is made for, px."""
    mid_attention: bool = False
    """Self-attention at the coarsest level; without it the result does not depend on tile size."""


@dataclass
class SchedulerShape:
    """The noise schedule; the defaults are those of SD 1.5."""

    train_timesteps: int = 1000
    """Steps of the forward process."""
    beta_start: float = 0.00085
    """First beta of the scaled linear schedule."""
    beta_end: float = 0.012
    """Last beta of the scaled linear schedule."""
    prediction_type: str = "epsilon"
    """What the U-Net predicts: `epsilon` or `v_prediction`."""
    zero_terminal_snr: bool = False
    """Rescale betas to zero terminal SNR (needs `v_prediction`), with trailing timesteps."""


@dataclass
class BundleConfig:
    """Shapes of a new Stable Diffusion bundle."""

    unet: UNetShape = field(default_factory=UNetShape)
    """Noise predictor."""
    text: TextShape = field(default_factory=TextShape)
    """Text encoder."""
    vae: AutoencoderShape = field(default_factory=AutoencoderShape)
    """Autoencoder."""
    scheduler: SchedulerShape = field(default_factory=SchedulerShape)
    """Noise schedule."""
    vocab_size: int = 1024
    """Size of the tokenizer's vocabulary when one is trained for the bundle."""
    text_2: TextShape | None = None
    """Second text encoder, with a projection; setting it makes an SDXL bundle."""


@dataclass
class ObjectiveConfig:
    """The loss of the noise predictor."""

    caption_dropout: float = 0.1
    """Fraction of (epoch, sample) pairs trained without caption, for guidance."""
    min_snr_gamma: float | None = None
    """Gamma of the min-SNR weighting (5 is usual); null weights every timestep equally."""
    noise_offset: float = 0.0
    """Standard deviation of a constant added to the noise of each latent channel."""


@dataclass
class TextureWeights:
    """Weights of the terms of the autoencoder's loss; images are in [-1, 1]."""

    optical_pixel: float = 4.0
    """Charbonnier distance of optical pixels."""
    optical_lowpass: float = 4.0
    """Charbonnier distance of optical colours averaged over 8 x 8 px."""
    optical_spectrum: float = 0.1
    """Log-spectral distance of optical luminance."""
    sar_pixel: float = 0.2
    """Charbonnier distance of SAR pixels; small, as it blurs speckle."""
    sar_lowpass: float = 2.0
    """Charbonnier distance of SAR amplitude averaged over 8 x 8 px."""
    histogram: float = 0.5
    """Distance of the sorted log amplitudes of each SAR patch."""
    increments: float = 0.3
    """Distance of the sorted differences of neighbouring log amplitudes."""
    spectrum: float = 0.2
    """Log-spectral distance of SAR log amplitude."""
    autocorrelation: float = 0.5
    """Distance of the speckle autocorrelation at lags 1-5."""
    colour: float = 2.0
    """Spread of the three channels of a SAR reconstruction."""
    adversarial: float = 0.1
    """Hinge loss against the patch discriminator."""
    kl: float = 0.002
    """Kullback-Leibler divergence to the unit Gaussian, nats per latent element."""


@dataclass
class AutoencoderConfig:
    """Training of the autoencoder on optical and SAR tiles."""

    shape: AutoencoderShape = field(default_factory=AutoencoderShape)
    """Shape of the autoencoder."""
    weights: TextureWeights = field(default_factory=TextureWeights)
    """Weights of the loss."""
    seed: int = 0
    """Seed of weights, crops and latent noise."""
    steps: int = 8000
    """Optimiser steps."""
    encoder_steps: int | None = None
    """Step from which the encoder is frozen and only the decoder is trained; null = never."""
    batch: int = 8
    """Crops per step, the first half optical and the second half SAR."""
    crop_px: int = 64
    """Side of a training crop, px (a multiple of 32)."""
    final_crop_px: int = 128
    """Side of the crops in the last part of the training, px."""
    final_fraction: float = 0.25
    """Fraction of the steps done on the larger crops."""
    learning_rate: float = 5e-4
    """Peak learning rate of the autoencoder."""
    discriminator_rate: float = 2e-4
    """Learning rate of the discriminator."""
    texture_start: int = 300
    """First step with histogram, spectrum and autocorrelation terms."""
    texture_ramp: int = 500
    """Steps over which these terms ramp up to their weights."""
    discriminator_start: int = 1000
    """First step with the adversarial term."""
    warmup: int = 100
    """Steps of linear warm-up, followed by a cosine decay to 1/20 of the peak."""
    ema: float = 0.999
    """Decay of the averaged weights, which are exported."""
    bfloat16: bool = True
    """Convolutions in bfloat16 (faster on CPUs that support it)."""
    save_every: int = field(default=500, metadata={"transient": True})
    """Steps between checkpoints, panels and floors."""
    log_every: int = field(default=50, metadata={"transient": True})
    """Steps between log lines."""


@dataclass
class DecoderConfig:
    """Fine-tuning of an autoencoder's decoder on SAR tiles; encoder and latents are unchanged."""

    weights: TextureWeights = field(default_factory=TextureWeights)
    """Weights of the loss; only those of SAR terms are used."""
    seed: int = 0
    """Seed of crops and latent noise."""
    steps: int = 2000
    """Optimiser steps."""
    batch: int = 8
    """Crops per step."""
    crop_px: int = 128
    """Side of a crop, px (a multiple of 32), in training and in the report."""
    learning_rate: float = 1e-4
    """Peak learning rate, with a cosine decay to 1/20."""
    warmup: int = 100
    """Steps of linear warm-up."""
    tiles: int = 2000
    """Maximum number of tiles read from each split, evenly from all shards."""
    report_crops: int = 32
    """Held-out crops that the report is computed on."""
    threads: int = 1
    """CPU threads; on a CPU the exact result depends on it."""
    save_every: int = field(default=200, metadata={"transient": True})
    """Steps between checkpoints."""
    log_every: int = field(default=50, metadata={"transient": True})
    """Steps between log lines."""


VARIANTS = {"fp16": "float16", "bf16": "bfloat16"}
"""Variant of the weights in a diffusers folder -> their dtype."""

LORA_FILE = "pytorch_lora_weights.safetensors"
"""The name under which diffusers' `load_lora_weights` looks for an adapter in a folder."""
LYCORIS_FILE = "lycoris_weights.safetensors"
"""The name of a LoHa or LoKr adapter in a folder, in the layout of LyCORIS."""


ADAPTER_KINDS = ("lora", "locon", "loha", "lokr", "dylora")


@dataclass
class AdapterConfig:
    """A low-rank adapter on frozen weights, in place of their full fine-tune."""

    kind: str = "lora"
    """`lora`, `locon` (LoRA on convolutions too), `loha` (Hadamard), `lokr` (Kronecker) or `dylora`
    (LoRA that can be truncated to any smaller rank after training)."""
    rank: int = 16
    """Rank of the update; 4 to 256 are usual."""
    alpha: float | None = None
    """The update is scaled by alpha / rank; null means alpha = rank."""
    block: int = field(default=1, metadata={"added": True})
    """For `dylora`: ranks are drawn, and can be exported, in multiples of this."""
    unet: bool = True
    """Adapt the U-Net; false trains it in full (`lr_unet=0` freezes it)."""
    text_encoder: bool = True
    """Adapt the text encoder; false trains it in full (`lr_text_encoder=0` freezes it)."""
    targets: list[str] | None = None
    """Name suffixes of the U-Net's adapted modules; null takes the usual ones for `kind`."""


LAYERS = {
    "edges": "edges.png",
    "segmentation": "segmentation.png",
    "optical": "optic.png",
    "coarse": "coarse.png",
    "other": "other.png",
}
"""Conditioning layer -> member of a sample that holds it."""


@dataclass
class ControlConfig:
    """A ControlNet: a copy of the U-Net's encoder that reads a layer of the tile."""

    layer: str = "edges"
    """Conditioning layer: `edges` (a sketch), `segmentation`, `optical`, `coarse` (the tile at a
    lower resolution), or `other` (another band or polarisation); `tile.conditions` makes them."""
    lr: float = 1e-5
    """Its learning rate; everything else is frozen."""
    shuffle: bool = False
    """Pair every image with the layer of another: the control experiment for its effect."""


@dataclass
class TokenConfig:
    """A new token whose embedding is learned, with the models or alone."""

    text: str = "<SAR>"
    """Its spelling in captions and prompts; it is trained only where it occurs in them."""
    initializer: str = "radar"
    """Word whose embedding initialises it; the mean if it has several tokens."""
    lr: float = 5e-4
    """Learning rate of its embedding."""
