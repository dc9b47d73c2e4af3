"""Models: the Stable Diffusion bundle, its objective and its autoencoder."""
