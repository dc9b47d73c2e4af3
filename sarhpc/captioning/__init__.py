"""Captions: captioners, templates and the fine-tuning of BLIP."""
