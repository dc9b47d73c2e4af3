"""Finished corpora: index, splits, dataset card, Croissant metadata, and other layouts."""
