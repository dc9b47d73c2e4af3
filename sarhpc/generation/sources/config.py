"""Configuration of image to image: which images, and how much of them is noise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ImageToImageConfig:
    """Begin with images, encoded and partly noised, instead of pure noise; in turn, one each."""

    images: str | None = None
    """Folder of gray 8-bit pictures, or of WebDataset shards, searched recursively; null takes the
    held-out tiles of the run. Texts beside them are the prompts if none are given."""
    strength: float = 0.5
    """Share of the noise schedule that is applied to the image and removed again, more than 0 and
    at most 1: near 0 the result is the autoencoder's copy of the image, at 1 nearly all is new."""
    keep_mean_px: float | None = None
    """Bring the local mean power of the result back to that of the image: standard deviation of the
    Gaussian of the mean, px. For simulated scenes, whose mean backscatter is known and whose
    speckle is not; needs a contract of the model. Null leaves the result as it is."""
