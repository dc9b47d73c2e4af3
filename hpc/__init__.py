"""Run state on disk, Slurm and Dask, code inside jobs, observation; independent of SAR."""
