"""Evaluation: speckle, texture, spectrum, look direction, and the report."""
