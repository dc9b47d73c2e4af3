"""E12: what small networks learn from real, synthetic and mixed images."""
