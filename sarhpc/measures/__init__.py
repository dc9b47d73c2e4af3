"""Measures of SAR images: arrays in, numbers out."""
