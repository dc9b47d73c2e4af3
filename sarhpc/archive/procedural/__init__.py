"""The procedural archive: paired SAR and optical scenes with known truth, from a seed alone."""
