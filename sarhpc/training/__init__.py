"""Training: one trainer and its tasks."""
