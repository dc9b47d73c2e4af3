"""Families of diffusion models: what SD 1.5 and SDXL are made of, one file each."""
