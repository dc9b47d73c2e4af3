"""Observing a run: status, logs, cost report, cleaning."""
