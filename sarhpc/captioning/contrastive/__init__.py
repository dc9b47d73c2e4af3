"""Contrastive fine-tuning of CLIP on captioned radar tiles."""
