"""Cluster machinery: runs, submission and resilience. Knows nothing of SAR."""
