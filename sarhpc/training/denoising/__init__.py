"""The training task of Stable Diffusion: data, latents, objective, validation grids."""
