"""Image to image: images that the sampler begins with, instead of pure noise."""
