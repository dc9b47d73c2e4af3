"""Machines: Slurm, submission, profiles, Dask, node health."""
