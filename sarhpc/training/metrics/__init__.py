"""The metrics of a training: metrics.jsonl and what is written from it."""
