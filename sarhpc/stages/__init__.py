"""Stages: where the cluster machinery and the science meet."""
